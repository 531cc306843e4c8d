"""One writer of an object store at a time: a lease, which is an object that says who holds it and is renewed.

A store has no ``flock``. What it has are puts on a condition: *create* (nothing is there) and *replace* (what is there
is what was read, by its ETag). Every change of the lease is one of these, so that of two that want it one gets it.

Whether a lease has run out is judged by the server's clock alone: the time at which it last took the lease, against the
time at which it takes an object that who asks puts there. So no two machines need to agree on the time.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from causcell._internal.locks import describe_process
from causcell._internal.remote import RemotePath, telling
from causcell.errors import OutputBusyError, OutputError

SECONDS = 60.0
"""Time for which a lease is given; it is renewed three times as often."""

_RESOLUTION = 1.0
"""Seconds between which a server does not tell times apart."""


class Lease:
    """The lease of a store.

    Parameters
    ----------
    store
        obstore's store, with short timeouts.
    path
        Its URL, for messages.
    name
        Name of the object.
    token
        What names the holder: of a run whose workers commit for it; a new one, if not given.
    """

    def __init__(self, store: Any, path: RemotePath, name: str, token: str = "") -> None:
        self.token = token or secrets.token_hex(16)
        self._store, self._path, self._name = store, path, name
        self._version: dict[str, str] = {}
        self._renewals = 0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease for a ``with`` block, and renew it meanwhile.

        Raises
        ------
        OutputBusyError
            Another run holds it.
        OutputError
            The server does not put on a condition, or can't be used.
        """
        with telling(self._path, OutputError):
            try:
                self._take(self._ask_server())
            except FileNotFoundError as error:
                raise OutputError(f"{self._path.url!r} can't be written to: there is no such bucket") from error
        thread = threading.Thread(target=self._renew_until_ended, name="causcell-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._release()

    def check(self) -> None:
        """Raise `OutputBusyError` unless the lease is still this run's."""
        with telling(self._path, OutputError):
            there, _, _ = self._read()
        if there.get("token") != self.token:
            who = f"to {_describe(there)}" if there.get("token") else "by this run, or its lock was removed"
            raise OutputBusyError(
                f"the lock of {self._path.url!r} was lost {who}: this run was held up for too long, and stops before "
                "it commits anything more; what is finished is kept, and the same command goes on with it"
            )

    def _ask_server(self) -> datetime.datetime:
        """Return the time by the server's clock, once it has been seen to put on a condition.

        Raises
        ------
        OutputError
            It does not, so that two writers could not be told apart.
        """
        exceptions: Any = import_module("obstore.exceptions")
        name = f"{self._name}.probe-{secrets.token_hex(8)}"
        refused = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
        try:
            first = self._put(b"1", "create", name)
            for mode in ("create", first):
                if mode == first:
                    self._put(b"2", first, name)
                try:
                    self._put(b"3", mode, name)
                except refused:
                    continue
                raise self._no_conditions("it overwrote an object that should have kept it from that")
            asked = self._store.head(name)["last_modified"]
        except (exceptions.NotSupportedError, *refused) as error:
            raise self._no_conditions(str(error).partition("\n")[0][:200]) from error
        except exceptions.GenericError as error:
            if " 501 " in str(error) or "NotImplemented" in str(error):
                raise self._no_conditions("it says that it does not have them") from error
            raise
        finally:
            with contextlib.suppress(exceptions.BaseError, OSError):
                self._store.delete(name)
        return asked  # type: ignore[no-any-return]

    def _no_conditions(self, why: str) -> OutputError:
        return OutputError(
            f"{self._path.url!r} can't be written to safely: its server does not put objects on a condition "
            f"(If-None-Match, If-Match; {why}), so that two runs could write there at once; write to a folder and copy "
            "it there, or take a service that does, such as Amazon S3 or Google Cloud Storage"
        )

    def _take(self, now: datetime.datetime) -> None:
        """Take the lease, if nobody holds it, or the one who did has ended or let it run out."""
        exceptions: Any = import_module("obstore.exceptions")
        with contextlib.suppress(exceptions.AlreadyExistsError):
            self._version = self._put(self._body(), "create")
            return
        there, version, renewed = self._read()
        if there.get("token") not in (None, "", self.token):
            until = renewed + datetime.timedelta(seconds=_seconds(there) + _RESOLUTION)
            if now <= until and not _has_ended(there):
                raise self._busy(there, until)
        try:
            self._version = self._put(self._body(), version) if version else self._put(self._body(), "create")
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            there, version, renewed = self._read()
            if there.get("token") != self.token:  # else the answer to this very put was lost
                raise self._busy(there, renewed + datetime.timedelta(seconds=_seconds(there))) from None
            self._version = version

    def _busy(self, there: Mapping[str, Any], until: datetime.datetime) -> OutputBusyError:
        return OutputBusyError(
            f"{_describe(there)} is writing to {self._path.url!r}, until {until:%H:%M:%S} UTC by the server's clock or "
            "longer; wait for it, or name another place"
        )

    def _renew_until_ended(self) -> None:
        """Renew the lease every third of its time; what fails is tried again, and `check` tells whether it was lost."""
        exceptions: Any = import_module("obstore.exceptions")
        while not self._ended.wait(SECONDS / 3):
            try:
                self._version = self._put(self._body(), self._version)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError, FileNotFoundError):
                with contextlib.suppress(exceptions.BaseError, OSError, OutputError):
                    there, version, _ = self._read()
                    if there.get("token") != self.token:
                        return
                    self._version = version
            except (exceptions.BaseError, OSError):
                continue

    def _release(self) -> None:
        """Give the lease back, if it is still this run's; one that can't be given back runs out."""
        exceptions: Any = import_module("obstore.exceptions")
        with contextlib.suppress(exceptions.BaseError, OSError):
            self._put(json.dumps({"token": ""}).encode(), self._version)

    def _body(self) -> bytes:
        self._renewals += 1  # so that no two have the same ETag
        fields = {"token": self.token, "seconds": SECONDS, "renewals": self._renewals}
        return json.dumps(fields | describe_process(os.getpid())).encode()

    def _put(self, content: bytes, mode: Any, name: str = "") -> dict[str, str]:
        return put_version(self._store.put(name or self._name, content, mode=mode))

    def _read(self) -> tuple[dict[str, Any], dict[str, str], datetime.datetime]:
        """Return who holds the lease, its version, and when it was renewed; nothing where there is none."""
        try:
            found = self._store.get(self._name)
            content = bytes(found.bytes())
        except FileNotFoundError:
            return {}, {}, datetime.datetime.min.replace(tzinfo=datetime.UTC)
        try:
            fields = json.loads(content[:4096])
        except (ValueError, RecursionError):
            fields = {"token": "unknown"}
        fields = fields if isinstance(fields, dict) else {"token": "unknown"}
        return fields, put_version(found.meta), found.meta["last_modified"]


def put_version(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what names the version of an object, by what a store says of it."""
    return {name: str(result[name]) for name in ("e_tag", "version") if result.get(name)}


def _seconds(there: Mapping[str, Any]) -> float:
    seconds = there.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and 0 < seconds < 86400 else SECONDS


def _has_ended(there: Mapping[str, Any]) -> bool:
    """Tell whether a process is known to have ended: one of this machine, since it was started."""
    if not isinstance(there.get("pid"), int):
        return False
    here = describe_process(there["pid"])
    alike = all(here[name] is not None and there.get(name) == here[name] for name in ("host", "boot", "namespace"))
    return alike and there.get("started") != here["started"]


def _describe(there: Mapping[str, Any]) -> str:
    if not isinstance(there.get("pid"), int):
        return "another run"
    return f"process {there['pid']} on {str(there.get('host'))[:100]!r}"
