"""Places that are not of this machine: objects of ``s3://`` and ``gs://``, and files of ``https://``, by obstore.

Who may read and write is told by the environment alone, as the tools of each service take it: ``AWS_ACCESS_KEY_ID`` and
its like, ``GOOGLE_APPLICATION_CREDENTIALS``. A URL is written into plans, journals and messages, so that one with a
password or a signature in it is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from causcell._internal.files import local_path
from causcell.errors import CausCellError, ConfigurationError, DataError, RuntimeUnavailableError

WRITABLE = ("s3", "gs")
"""Schemes of stores that objects can be put into on a condition."""

READABLE = (*WRITABLE, "https", "http")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_CLIENT = ("allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "root_certificate", "timeout")
"""Settings of a connection that are taken from variables such as ``AWS_ALLOW_HTTP``."""

LARGEST_SMALL = 64 * 10**6
"""Bytes of metadata that are read at most."""

_LONGEST_REASON = 300


@dataclass(frozen=True)
class RemotePath:
    """A URL of an object, or of what all objects below begin with; has what is asked of a `pathlib.Path` here.

    Attributes
    ----------
    url
        Scheme, bucket or host, and key.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def scheme(self) -> str:
        """``s3``, ``gs``, ``https`` or ``http``."""
        return self.url.partition(":")[0]

    @property
    def name(self) -> str:
        """Last part of the key."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """Suffix of the name, with its dot."""
        return PurePosixPath(self.url).suffix

    @property
    def parent(self) -> RemotePath:
        """Folder of the key."""
        return RemotePath(self.url.rpartition("/")[0])

    def absolute(self) -> RemotePath:
        """Return the same: it is."""
        return self


AnyPath: TypeAlias = Path | RemotePath
"""A path of this machine, or a URL."""


def any_path(
    path: str | os.PathLike[str] | RemotePath, what: str = "out", schemes: tuple[str, ...] = WRITABLE
) -> AnyPath:
    """Return a URL of one of the schemes, or a path as `causcell._internal.files.local_path` does.

    Parameters
    ----------
    path
        A URL, a path, or a path that was a URL: ``Path("s3://bucket/key")`` is ``s3:/bucket/key``.
    what
        Name of the argument, for messages.
    schemes
        Those that can be used here.

    Raises
    ------
    ConfigurationError
        A URL of another scheme, without a key, or with a password or signature in it.

    Examples
    --------
    >>> any_path("s3://bucket/atlas.zarr")
    RemotePath(url='s3://bucket/atlas.zarr')
    >>> any_path("atlas.zarr")
    PosixPath('atlas.zarr')
    """
    if isinstance(path, RemotePath):
        path = path.url
    text = os.fspath(path)
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", text)
    if found is None or found[1].lower() not in schemes:
        return local_path(path, what)
    url = f"{found[1].lower()}://{text[found.end() :].rstrip('/')}"
    _check_url(url, what)
    return RemotePath(url)


def _check_url(url: str, what: str) -> None:
    """Raise `ConfigurationError` for a URL that can't be used; what may be secret in it is not shown."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise ConfigurationError(f"{what} is no URL ({error}); give one such as s3://bucket/atlas.zarr") from error
    place = parts.netloc.rpartition("@")[2]
    shown = f"{what}='{parts.scheme}://{place}{parts.path}'"
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{shown} had a user or password before its host, which would stand in the plan and in messages; leave it "
            "out: credentials are taken from the environment (AWS_ACCESS_KEY_ID and its like)"
        )
    if "?" in url or "#" in url:
        raise ConfigurationError(
            f"{shown} had a query or fragment behind it, such as a signature, which would stand in the plan and in "
            "messages; leave it out: credentials are taken from the environment (AWS_ACCESS_KEY_ID and its like)"
        )
    names = parts.path.removeprefix("/").split("/")
    if not host or any(unquote(name) in ("", ".", "..") for name in names) or re.search(r"[\x00-\x1f\\]", unquote(url)):
        raise ConfigurationError(f"{shown} names no object; give bucket and key, such as s3://bucket/atlas.zarr")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ConfigurationError(
            f"{shown} is read unprotected, so that anyone on the way could change the cells; give its https:// address"
        )


def load_obstore(path: RemotePath) -> Any:
    """Import obstore's stores for a URL; raises `RuntimeUnavailableError` where it is not installed."""
    try:
        return import_module("obstore.store")
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"{path.url!r} needs the package obstore; install causcell[cloud]") from error


def open_store(path: RemotePath, timeout: str = "600s", retries: int = 5) -> Any:
    """Open obstore's store for all that is below a URL.

    Parameters
    ----------
    path
        The URL.
    timeout
        Longest time of one request, where the environment sets none (``AWS_TIMEOUT``).
    retries
        How often a request that failed on the way or by the server's fault is sent again.

    Raises
    ------
    RuntimeUnavailableError
        obstore is not installed.
    """
    stores = load_obstore(path)
    parts = urlsplit(path.url)
    service = {"s3": "AWS", "gs": "GOOGLE"}.get(path.scheme, "")
    client = {name: os.environ[key] for name in _OF_CLIENT if (key := f"{service}_{name.upper()}") in os.environ}
    options: dict[str, Any] = {
        "client_options": {"timeout": timeout, "connect_timeout": "10s"} | client,
        "retry_config": {"max_retries": retries},
    }
    with telling(path, ConfigurationError):
        if path.scheme in WRITABLE:
            kind = stores.S3Store if path.scheme == "s3" else stores.GCSStore
            return kind(parts.netloc, prefix=unquote(parts.path).strip("/") or None, **options)
        if path.scheme == "http":
            options["client_options"]["allow_http"] = "true"
        return stores.HTTPStore.from_url(path.url, **options)


def list_below(store: Any, folder: str) -> list[str]:
    """Return the names right below a folder of a store of `open_store`, of what are folders themselves."""
    found = store.list_with_delimiter(folder or None)["common_prefixes"]
    return [PurePosixPath(str(name)).name for name in found]


def is_there(store: Any, name: str) -> bool:
    """Tell whether a store of `open_store` has an object."""
    try:
        store.head(name)
    except FileNotFoundError:
        return False
    return True


def read_small(store: Any, path: RemotePath, name: str) -> bytes | None:
    """Return what a small object of a store of `open_store` holds, `None` where there is none.

    Raises
    ------
    DataError
        It is larger than 64 MB, or the server can't be used.
    """
    with telling(path, DataError):
        try:
            found = store.get(name)
        except FileNotFoundError:
            return None
        if found.meta["size"] > LARGEST_SMALL:
            raise DataError(
                f"{path.url}/{name} has {found.meta['size']} bytes, where metadata have a few; is it a store?"
            )
        return bytes(found.bytes())


@contextlib.contextmanager
def telling(path: RemotePath, error_class: type[CausCellError]) -> Iterator[None]:
    """Turn what a store raises into an error of a class that names the URL and the reason.

    `FileNotFoundError`, and a condition of a put that does not hold, are for who asked.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        exceptions: Any = import_module("obstore.exceptions")
        if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
            raise
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            raise error_class(
                f"{path.url!r} is not open to this user ({_reason(error)}); credentials are taken from the environment "
                "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS and their like)"
            ) from error
        if "NoSuchBucket" in str(error):
            raise error_class(f"{path.url!r} can't be used: there is no such bucket") from error
        raise error_class(
            f"{path.url!r} can't be used ({_reason(error)}); if the service does not answer, try again later"
        ) from error


def _reason(error: BaseException) -> str:
    """Return what a store says, without the pages that follow."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
