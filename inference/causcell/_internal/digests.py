"""Digests of files and of names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def name_digests(names: Iterable[str]) -> np.ndarray:
    """Return the digest of each name (blake2b, 8 bytes), uint64 [n].

    Examples
    --------
    >>> len(set(name_digests(["cell_1", "cell_2"]).tolist()))
    2
    """
    digests = b"".join([hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names])
    return np.frombuffer(digests, dtype="<u8")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
