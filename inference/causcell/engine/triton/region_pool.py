"""Shared memory with one server: negotiated once, then one region a request, kept for the next."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from causcell.engine.triton.connection import Connection
from causcell.engine.triton.messages import REGIONS
from causcell.engine.triton.retries import TRANSIENT
from causcell.engine.triton.shared_memory import Region, find_abandoned
from causcell.engine.triton.transport import Transport
from causcell.errors import EngineError

_log = logging.getLogger(__name__)


class RegionPool:
    """Lend regions of system shared memory that a server has mapped. Safe to use from several threads.

    Parameters
    ----------
    transport
        Requests to the server.
    connection
        Says if memory is shared at all.
    """

    def __init__(self, transport: Transport, connection: Connection) -> None:
        self._transport = transport
        self._usable: bool | None = None if connection.shared_memory else False  # None: not negotiated yet
        self._negotiation = threading.Lock()
        self._idle: queue.LifoQueue[Region] = queue.LifoQueue()

    def is_usable(self) -> bool:
        """Tell if the server can map this process's memory, as on one host if it was started to; asked once."""
        if self._usable is None:
            with self._negotiation:
                if self._usable is None:
                    self._usable = self._negotiate()
        return self._usable

    def give_up(self, reason: Exception) -> None:
        """Lend no more regions."""
        self._usable = False
        _log.warning(
            "no more memory to share with %s (%s); arrays travel over the connection", self._transport.address, reason
        )

    @contextmanager
    def lend(self, size: int) -> Iterator[Region]:
        """Lend a region of at least ``size`` bytes.

        If the block fails, the region is dropped: the request that failed may still write to it.

        Raises
        ------
        OSError
            There is not so much shared memory, or the server does not map it.
        """
        region = self._take(size)
        try:
            yield region
        except BaseException:
            self._drop(region)
            raise
        self._idle.put(region)

    def names(self) -> list[str]:
        """List the names of all regions that the server maps, those of other clients too."""
        return [region["name"] for region in self._transport.regions(REGIONS)]

    def clear(self) -> None:
        """Drop all idle regions: the server may have restarted, or may still write to them."""
        while not self._idle.empty():
            self._drop(self._idle.get_nowait())

    def _negotiate(self) -> bool:
        try:
            region = self._new_region(1)
        except (EngineError, OSError) as reason:
            _log.info(
                "no shared memory with %s (%s); arrays travel over the connection", self._transport.address, reason
            )
            return False
        self._idle.put(region)
        try:
            for name in find_abandoned(self.names()):
                self._transport.unregister_region(name)
        except EngineError as error:  # another client does it at the same time, or the server forbids to look
            _log.debug("%s keeps regions of clients that are gone: %s", self._transport.address, error)
        return True

    def _take(self, size: int) -> Region:
        try:
            region = self._idle.get_nowait()
        except queue.Empty:
            return self._new_region(size)
        if region.size >= size:
            return region
        self._drop(region)
        return self._new_region(size)

    def _new_region(self, size: int) -> Region:
        region = Region(size)
        try:
            region.register(self._transport.register_region)
        except BaseException as error:
            region.close()
            if isinstance(error, EngineError) and (not isinstance(error, TRANSIENT) or "shared memory" in str(error)):
                raise OSError(f"the server does not map it: {error}") from error
            raise
        return region

    def _drop(self, region: Region) -> None:
        region.close()
        try:
            self._transport.unregister_region(region.name, deadline=1.0)
        except EngineError as error:  # the server is gone, and its mapping with it
            _log.debug("%s did not unregister %s: %s", self._transport.address, region.name, error)
