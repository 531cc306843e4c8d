"""Addresses of servers, and the settings of requests to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from causcell.errors import ConfigurationError, format_list

_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}

SCHEMES = tuple(_DEFAULT_PORTS)
"""Schemes of addresses; those that end in ``s`` use TLS."""


@dataclass(frozen=True)
class Connection:
    """Deadlines, retries and credentials of requests to servers.

    Attributes
    ----------
    deadline
        Seconds that one request may take, above 0.
    patience
        Seconds to go on trying for, where servers are unavailable or requests time out; 0 tries once.
    in_flight
        Requests at once, over all servers, at least 1.
    shared_memory
        Pass arrays through system shared memory where client and server share a host.
    headers
        Sent with every request, such as ``{"authorization": "Bearer ..."}``.
    certificates
        File of the authorities (PEM) to trust for ``grpcs://`` and ``https://``; the system's, if not given.

    Raises
    ------
    ConfigurationError
        A number is outside its range, or there is no file of certificates.

    Examples
    --------
    >>> Connection(deadline=10, headers={"authorization": "Bearer 0123"}).in_flight
    4
    >>> Connection(in_flight=0)
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: in_flight is 0; take at least 1
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # an unknown name in a connection file is an error

    deadline: float = 60.0
    patience: float = 60.0
    in_flight: int = 4
    shared_memory: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    certificates: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.deadline <= 0:
            raise ConfigurationError(f"deadline is {self.deadline}; take seconds above 0")
        if self.patience < 0:
            raise ConfigurationError(f"patience is {self.patience}; take seconds, at least 0")
        if self.in_flight < 1:
            raise ConfigurationError(f"in_flight is {self.in_flight}; take at least 1")
        if self.certificates is not None and not Path(self.certificates).is_file():
            raise ConfigurationError(
                f"certificates is {os.fspath(self.certificates)!r}, where there is no file; name a PEM file of "
                "authorities, or leave it out to trust the system's"
            )


@dataclass(frozen=True)
class Address:
    """Address of one server.

    Attributes
    ----------
    scheme
        One of `SCHEMES`.
    host, port
        Name or number of the host, and its port.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_grpc(self) -> bool:
        """True for gRPC, False for HTTP."""
        return self.scheme in ("grpc", "grpcs")

    @property
    def is_secure(self) -> bool:
        """True where the connection uses TLS."""
        return self.scheme in ("grpcs", "https")


def parse_location(location: str) -> tuple[Address, ...]:
    """Parse the addresses in a location.

    Parameters
    ----------
    location
        ``SCHEME://HOST:PORT``; several are joined by commas. Without a port it is 8001 for gRPC, 8000 for HTTP, and 443
        for either with TLS.

    Raises
    ------
    ConfigurationError
        Another scheme, no host, a port that is no number, anything after the port, or one address twice.

    Examples
    --------
    >>> parse_location("grpc://localhost:8001")
    (Address(scheme='grpc', host='localhost', port=8001),)
    >>> [str(address) for address in parse_location("grpcs://a.example.org,grpcs://b.example.org")]
    ['grpcs://a.example.org:443', 'grpcs://b.example.org:443']
    """
    addresses = tuple(_parse_address(text.strip()) for text in location.split(","))
    if len(set(addresses)) < len(addresses):
        raise ConfigurationError(f"location {location!r} names a server twice; name each once")
    return addresses


def _parse_address(text: str) -> Address:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in SCHEMES or not parts.hostname or port == -1 or rest:
        raise ConfigurationError(
            f"location {text!r} is no address of a server; an address is SCHEME://HOST:PORT, with scheme "
            f"{format_list(SCHEMES)}, such as grpc://localhost:8001; several are joined by commas"
        )
    return Address(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])
