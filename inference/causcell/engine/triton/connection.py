"""Addresses of servers, and the settings of requests to them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from causcell._internal.numbers import MOST_THREADS, whole_number
from causcell.errors import ConfigurationError, format_list

_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}

LONGEST = 1_000_000
"""Seconds that a deadline may be, at most: more than eleven days."""

_OWN_HEADERS = {
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "inference-header-content-length",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

SCHEMES = tuple(_DEFAULT_PORTS)
"""Schemes of addresses; those that end in ``s`` use TLS."""


@dataclass(frozen=True)
class Connection:
    """Deadlines, retries and credentials of requests to servers.

    Attributes
    ----------
    deadline
        Seconds that one request may take, above 0: connecting, sending, waiting and receiving together.
    patience
        Seconds to go on trying for, where servers are unavailable or busy or requests time out; 0 tries once.
    in_flight
        Requests at once, over all servers, 1 to 4,096.
    shared_memory
        Pass arrays through system shared memory where client and server share a host.
    headers
        Sent with every request, such as ``{"authorization": "Bearer ..."}``.
    certificates
        File of the authorities (PEM) to trust for ``grpcs://`` and ``https://``; the system's, if not given.

    Raises
    ------
    ConfigurationError
        A number is outside its range, a header can't be sent, or there is no file of certificates.

    Examples
    --------
    >>> Connection(deadline=10, headers={"authorization": "Bearer 0123"}).in_flight
    4
    >>> Connection(in_flight=0)
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: in_flight=0: take at least 1 (at most 4096)
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # an unknown name in a connection file is an error

    deadline: float = 60.0
    patience: float = 60.0
    in_flight: int = 4
    shared_memory: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    certificates: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.deadline) and 0 < self.deadline <= LONGEST):
            raise ConfigurationError(f"deadline is {self.deadline}; take seconds above 0, at most {LONGEST:,}")
        if not (_is_number(self.patience) and 0 <= self.patience <= LONGEST):
            raise ConfigurationError(f"patience is {self.patience}; take seconds, at least 0, at most {LONGEST:,}")
        whole_number(self.in_flight, "in_flight", 1, MOST_THREADS)  # a thread each
        for name, value in self.headers.items():
            _check_header(name, value)
        if self.certificates is not None:
            _check_certificates(self.certificates)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)  # NaN fails every comparison


def _check_header(name: str, value: str) -> None:
    """Raise `ConfigurationError` for a header that can't be sent, or that would change what a request is."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ConfigurationError(f"headers has the name {name!r}; take letters, digits, '-', '_' and '.'")
    if name.lower() in _OWN_HEADERS or name.lower().startswith("grpc-"):
        raise ConfigurationError(f"headers has {name!r}, which the client sets itself; leave it out")
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]*", value):
        # the value may be a secret
        raise ConfigurationError(f"the header {name!r} has a value that is not one line of ASCII text; write it so")


def _check_certificates(path: str | os.PathLike[str]) -> None:
    """Raise `ConfigurationError` if a file holds no certificates of authorities."""
    if not Path(path).is_file():
        raise ConfigurationError(
            f"certificates is {os.fspath(path)!r}, where there is no file; name a PEM file of authorities, or leave it "
            "out to trust the system's"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=os.fspath(path))
    except (OSError, ValueError) as error:  # an `ssl.SSLError` is an `OSError`
        raise ConfigurationError(
            f"certificates is {os.fspath(path)!r}, which can't be read as certificates ({error}); name a PEM file of "
            "authorities, or leave it out to trust the system's"
        ) from error


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
