"""How to talk to servers, and their addresses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from causcell.errors import (
    ConfigurationError,
    format_list,
)

SCHEMES = ("grpc", "grpcs", "http", "https")


_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}


@dataclass(frozen=True)
class Connection:
    """How to talk to servers.

    Attributes
    ----------
    deadline
        Seconds that one request may take.
    patience
        Seconds to go on trying for, where servers are unavailable or requests time out.
    in_flight
        Requests at once, over all servers.
    shared_memory
        Pass arrays through system shared memory where client and server share a host.
    headers
        Sent with every request, such as ``{"authorization": "Bearer ..."}``.
    certificates
        File of the authorities (PEM) to trust for ``grpcs://`` and ``https://``; the system's, if not given.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read from a file, a name that is none is an error

    deadline: float = 60.0
    patience: float = 60.0
    in_flight: int = 4
    shared_memory: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    certificates: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.deadline <= 0 or self.patience < 0 or self.in_flight < 1:
            raise ConfigurationError(
                f"deadline is {self.deadline}, patience {self.patience}, in_flight {self.in_flight}; take a deadline "
                "above 0, a patience of at least 0, and at least 1 request in flight"
            )
        if self.certificates is not None and not Path(self.certificates).is_file():
            raise ConfigurationError(f"there is no file of certificates {os.fspath(self.certificates)!r}")


@dataclass(frozen=True)
class Address:
    """Of one server."""

    scheme: Literal["grpc", "grpcs", "http", "https"]
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_location(location: str) -> tuple[Address, ...]:
    """Addresses in a location: ``grpc://host:8001``; several are joined by commas.

    Raises
    ------
    ConfigurationError
        Another scheme, no host, a port that is none, anything after the port.
    """
    addresses = []
    for text in location.split(","):
        parts = urlsplit(text.strip())
        try:
            port = parts.port
        except ValueError:
            port = -1
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if parts.scheme not in SCHEMES or not parts.hostname or port == -1 or rest:
            raise ConfigurationError(
                f"location {text.strip()!r} is no address of a server; an address is SCHEME://HOST:PORT, with scheme "
                f"{format_list(SCHEMES)}, such as grpc://localhost:8001; several are joined by commas"
            )
        addresses.append(Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme]))  # type: ignore[arg-type]
    if len(set(addresses)) < len(addresses):
        raise ConfigurationError(f"location {location!r} names a server twice")
    return tuple(addresses)
