"""Files of the shards of an atlas, with the same bytes as zarr's own writer.

A shard of values is a file of the sharding codec of zarr v3: its chunks, each compressed, then an index of their places
and its CRC-32C; it is written as its rows come, so that memory does not grow with the shard. A shard of an annotation
is a file of one chunk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.zarr_store import ZSTD_LEVEL, annotation_columns

if TYPE_CHECKING:
    import pandas as pd

_EMPTY = np.iinfo(np.uint64).max


class ShardWriter:
    """Write the rows of one shard of a 2-d array as they come, into a file beside its place.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas.
    place
        Place of the array in the store.
    shard
        Place of the shard.

    Attributes
    ----------
    target, staged
        Name of the file in the store, and where it is until then.
    """

    def __init__(self, journal: Journal, plan: Plan, place: str, shard: int) -> None:
        self.target = f"{place}/c/{shard}/0"
        self._kind, self._rows = plan.array_dtype(place), plan.chunk_rows
        self._index = np.full((-(-plan.shard_rows // plan.chunk_rows), 2), _EMPTY, dtype="<u8")
        self._chunk = np.zeros((plan.chunk_rows, plan.arrays[place]), dtype=self._kind)
        self._filled, self._chunks = 0, 0
        handle, name = tempfile.mkstemp(dir=journal.work)
        self.staged, self._file = Path(name), os.fdopen(handle, "wb")

    def append(self, rows: np.ndarray) -> None:
        """Write further rows, [n x columns]."""
        start = 0
        while start < len(rows):
            taken = min(self._rows - self._filled, len(rows) - start)
            self._chunk[self._filled : self._filled + taken] = rows[start : start + taken]
            self._filled, start = self._filled + taken, start + taken
            if self._filled == self._rows:
                self._flush()

    def _flush(self) -> None:
        encoded = _encode(self._chunk, self._kind)
        self._index[self._chunks] = self._file.tell(), len(encoded)
        self._file.write(encoded)
        self._chunks, self._filled = self._chunks + 1, 0

    def finish(self) -> None:
        """Write the last chunk, filled up with zeros, and the index."""
        from google_crc32c import value as crc32c

        if self._filled:
            self._chunk[self._filled :] = 0
            self._flush()
        index = self._index.tobytes()
        self._file.write(index + crc32c(index).to_bytes(4, "little"))
        self._file.close()

    def discard(self) -> None:
        """Remove the file, unless it was moved to its place."""
        self._file.close()
        self.staged.unlink(missing_ok=True)


def read_shard(file: BinaryIO, plan: Plan, place: str) -> Iterator[np.ndarray]:
    """Read the chunks of a shard of a 2-d array, each [chunk rows x columns]; rows beyond the atlas are zero.

    Raises
    ------
    ValueError, RuntimeError, OSError
        The file is not of this form.
    """
    from google_crc32c import value as crc32c
    from numcodecs import Zstd

    chunks = -(-plan.shard_rows // plan.chunk_rows)
    chunk = np.empty((plan.chunk_rows, plan.arrays[place]), dtype=np.dtype(plan.array_dtype(place)).newbyteorder("<"))
    end = file.seek(0, os.SEEK_END) - 16 * chunks - 4
    if end < 0:
        raise ValueError("it is shorter than its index")
    file.seek(end)
    index, check = file.read(16 * chunks), file.read(4)
    if crc32c(index) != int.from_bytes(check, "little"):
        raise ValueError("its index has another check sum")
    for start, length in np.frombuffer(index, dtype="<u8").reshape(chunks, 2).tolist():
        if start == length == _EMPTY:
            continue
        if start + length > end:
            raise ValueError("its index points outside")
        file.seek(start)
        Zstd().decode(file.read(length), out=chunk)
        yield chunk


def write_annotations(
    journal: Journal, plan: Plan, shard: int, obs: pd.DataFrame, obsm: Mapping[str, np.ndarray] | None = None
) -> dict[str, Path]:
    """Write a shard's part of ``obs``, and of annotations in ``obsm``.

    Returns
    -------
    Where each file is until then, by its name in the store.
    """
    first = plan.cells_of(shard).start
    files = {}

    def write(place: str, values: np.ndarray, kind: str, chunk: int) -> None:
        with tempfile.NamedTemporaryFile(dir=journal.work, delete=False) as file:
            file.write(_encode(_fill_chunk(values, chunk), kind))
        files[place] = Path(file.name)

    for name, (kind, _, chunk) in annotation_columns(plan, obs).items():
        values = _annotation(obs, name)
        if name == "source_cell/codes":
            values = values.astype(np.int32) + np.int32(first)
        write(f"obs/{name}/c/{shard}", values, kind, chunk)
    for name, values in (obsm or {}).items():
        write(f"obsm/{name}/c/{shard}/0", values, str(values.dtype), plan.shard_rows)
    return files


def encoded_bytes(
    plan: Plan, arrays: dict[str, np.ndarray], obs: pd.DataFrame, obsm: Mapping[str, np.ndarray] | None = None
) -> int:
    """Count the bytes on disk that some rows would take.

    Parameters
    ----------
    plan
        Plan of the atlas.
    arrays
        Values of the rows, by place in the store.
    obs, obsm
        Annotations of the rows.
    """
    size = sum(len(_encode(values, str(values.dtype))) for values in (obsm or {}).values())
    for place, rows in arrays.items():
        for start in range(0, len(rows), plan.chunk_rows):
            size += len(_encode(rows[start : start + plan.chunk_rows], plan.array_dtype(place)))
    for name, (kind, _, _) in annotation_columns(plan, obs).items():
        size += len(_encode(_annotation(obs, name), kind))
    return size


def _annotation(obs: pd.DataFrame, name: str) -> np.ndarray:
    """Return the values of an array of ``obs``: its index, a column, or one of the parts that a column has."""
    column, _, part = name.partition("/")
    if name == "_index":
        return np.asarray(obs.index, dtype=object)
    if part == "categories":
        return np.asarray(obs[column].cat.categories, dtype=object)
    if part == "mask":
        return np.asarray(obs[column].isna())
    if part == "values":
        plain = getattr(obs[column].dtype, "numpy_dtype", np.dtype(object))
        return np.asarray(obs[column].to_numpy(plain, na_value="" if plain.kind == "O" else plain.type(0)))
    return np.asarray(obs[column].cat.codes if part == "codes" else obs[column])


def _fill_chunk(values: np.ndarray, length: int) -> np.ndarray:
    """Fill values up to the length of a chunk, which is stored whole."""
    missing = length - len(values)
    if not missing:
        return values
    fill = "" if values.dtype == object else 0
    return np.concatenate([values, np.full((missing, *values.shape[1:]), fill, dtype=values.dtype)])


def _encode(values: np.ndarray, kind: str) -> bytes:
    """Encode a chunk as zarr's codecs of these arrays do."""
    from numcodecs import VLenUTF8, Zstd

    raw = (
        VLenUTF8().encode(values)
        if kind == "str"
        else np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    )
    return bytes(Zstd(ZSTD_LEVEL).encode(raw))
