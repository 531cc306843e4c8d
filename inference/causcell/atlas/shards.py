"""Shards of an atlas as files: chunks encoded as zarr encodes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell.atlas.journal import Journal
from causcell.atlas.plan import Plan
from causcell.atlas.zarr_store import ZSTD_LEVEL, annotation_columns

if TYPE_CHECKING:
    import pandas as pd

_EMPTY = np.iinfo(np.uint64).max


# -- shards ------------------------------------------------------------------------------------------------------------


def write_annotations(journal: Journal, plan: Plan, shard: int, obs: pd.DataFrame) -> dict[Path, Path]:
    """Write a shard's part of ``obs``; the files, not in their places yet, by target."""
    cells = plan.cells_of(shard)
    files = {}
    for name, (kind, _, chunk) in annotation_columns(plan, obs).items():
        column = name.partition("/")[0]
        if name == "_index":
            values = obs.index.to_numpy(dtype=object)
        elif name == "source_cell/categories":
            values = obs["source_cell"].cat.categories.to_numpy(dtype=object)
        elif name == "source_cell/codes":
            values = obs["source_cell"].cat.codes.to_numpy(dtype=np.int32) + np.int32(cells.start)
        else:
            values = (obs[column].cat.codes if name.endswith("/codes") else obs[column]).to_numpy()
        place = f"obs/{name}/c/{shard}"
        with tempfile.NamedTemporaryFile(dir=journal.work, delete=False) as file:
            file.write(_encoded(_filled(values, chunk), kind))
        files[journal.path / place] = Path(file.name)
    return files


def _filled(values: np.ndarray, length: int) -> np.ndarray:
    """Values up to the length of a chunk, which is stored whole."""
    missing = length - len(values)
    if not missing:
        return values
    fill = "" if values.dtype == object else 0
    return np.concatenate([values, np.full((missing, *values.shape[1:]), fill, dtype=values.dtype)])


def _encoded(values: np.ndarray, kind: str) -> bytes:
    """A chunk as zarr's codecs of these arrays encode it."""
    from numcodecs import VLenUTF8, Zstd

    raw = (
        VLenUTF8().encode(values)
        if kind == "str"
        else np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    )
    return Zstd(ZSTD_LEVEL).encode(raw)


def encoded_bytes(plan: Plan, arrays: dict[str, np.ndarray], obs: pd.DataFrame) -> float:
    """Bytes on disk that some rows would take."""
    size = 0
    for place, rows in arrays.items():
        for start in range(0, len(rows), plan.chunk_rows):
            size += len(_encoded(rows[start : start + plan.chunk_rows], plan.array_dtype(place)))
    for name, (kind, _, _) in annotation_columns(plan, obs).items():
        column = name.partition("/")[0]
        codes = name.endswith("/codes")
        values = obs.index if name == "_index" else obs[column].cat.codes if codes else obs[column]
        if name == "source_cell/categories":
            values = obs[column].cat.categories
        size += len(_encoded(values.to_numpy(dtype=object if kind == "str" else None), kind))
    return size


class ShardWriter:
    """Writes the rows of one shard of a 2-d array as they come, into a file beside its place.

    Parameters
    ----------
    place
        Of the array in the store.

    Attributes
    ----------
    target, staged
        Where the file belongs, and where it is.
    """

    def __init__(self, journal: Journal, plan: Plan, place: str, shard: int) -> None:
        self.target = journal.path / place / "c" / str(shard) / "0"
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
        encoded = _encoded(self._chunk, self._kind)
        self._index[self._chunks] = self._file.tell(), len(encoded)
        self._file.write(encoded)
        self._chunks, self._filled = self._chunks + 1, 0

    def finish(self) -> None:
        """Write what is left."""
        from google_crc32c import value as crc32c

        if self._filled:
            self._chunk[self._filled :] = 0
            self._flush()
        index = self._index.tobytes()
        self._file.write(index + crc32c(index).to_bytes(4, "little"))
        self._file.close()

    def discard(self) -> None:
        """Remove what was written."""
        self._file.close()
        self.staged.unlink(missing_ok=True)
