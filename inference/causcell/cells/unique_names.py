"""The names of many cells: no two alike, and one digest of all, in one pass and bounded memory.

Up to `LARGE` cells of a file keep a digest of each name, 8 bytes. Of more, names are compared by Python's own hash of
text, a seventh of a digest's time, and digested together.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.repeats import RepeatFinder
from causcell.errors import CellNameError, format_list

LARGE = 2**23
"""Cells up to which what is known of each is kept in memory; of more it is read as it is asked for."""

_SLICE = 2**18
"""Names that are read at once."""

ReadNames = Callable[[slice], np.ndarray]
"""Returns the names of consecutive cells, str objects."""


def check_digests(digests: np.ndarray, read: ReadNames) -> None:
    """Raise `CellNameError` where two cells of these digests, uint64 [n], have one name."""
    order = np.argsort(digests, kind="stable")
    again = np.diff(digests[order]) == 0
    if again.any():
        suspects = np.unique(np.concatenate([order[:-1][again], order[1:][again]]))
        _refuse_repeated(Counter(read(slice(row, row + 1))[0] for row in suspects.tolist()))


def check_texts(count: int, read: ReadNames) -> str:
    """Read the names of ``count`` cells once; raise `CellNameError` where two are alike.

    Returns
    -------
    `texts_digest` of them.
    """
    with RepeatFinder() as finder:
        digest = _digest_texts(_hashed(count, read, finder))
        repeated = finder.repeated()
    if len(repeated):
        names: Counter[str] = Counter()
        for rows in batches(count, _SLICE):
            found = read(rows)
            names.update(found[np.isin(_hashes(found), repeated)].tolist())
        _refuse_repeated(names)
    return digest


def texts_digest(count: int, read: ReadNames) -> str:
    r"""Return the SHA-256 of the names of ``count`` cells, each ended by a NUL, in hexadecimal digits.

    Names of 2^18 cells that hold a NUL themselves are taken as Python spells them.

    Examples
    --------
    >>> names = np.array(["a", "b"], dtype=object)
    >>> texts_digest(2, lambda rows: names[rows]) == hashlib.sha256(b"a\0b\0").hexdigest()
    True
    """
    return _digest_texts(read(rows) for rows in batches(count, _SLICE))


def _hashed(count: int, read: ReadNames, finder: RepeatFinder) -> Iterator[np.ndarray]:
    for rows in batches(count, _SLICE):
        names = read(rows)
        finder.add(_hashes(names))
        yield names


def _hashes(names: np.ndarray) -> np.ndarray:
    """Return a number of each name, uint64 [n]: the same of the same name, in this process alone."""
    return np.fromiter(map(hash, names.tolist()), dtype=np.int64, count=len(names)).view(np.uint64)


def _digest_texts(slices: Iterator[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for names in slices:
        texts = names.tolist()
        joined = "\0".join(texts)
        if joined.count("\0") >= len(texts):
            joined = "\0".join(map(repr, texts))
        digest.update(joined.encode() + b"\0")
    return digest.hexdigest()


def _refuse_repeated(names: Counter[str]) -> None:
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise CellNameError(
            f"{len(twice)} cell names are duplicated: {format_list(twice)}; every random number of a cell "
            "hangs on its name: make them unique (adata.obs_names_make_unique(), or a prefix for each file)"
        )
