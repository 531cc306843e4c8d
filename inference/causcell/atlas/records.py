"""Records of an atlas's files: what is complete, by size and digest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from causcell._internal.digests import file_digest
from causcell._internal.files import is_full
from causcell.atlas.plan import Plan
from causcell.counterfactual.tables import Unseen
from causcell.errors import OutputFullError

_NO_PARTS = frozenset(("", ".", ".."))
"""Parts of a path that could lead anywhere."""


def check_place(name: str) -> str:
    """Return the path of a file in the store; raises `ValueError` for one that could leave it."""
    if "\0" in name or not _NO_PARTS.isdisjoint(name.split("/")):
        raise ValueError(f"{name!r} is no place in the store")
    return name


PieceArray = Literal["data", "indices", "lengths"]
"""Arrays of a piece: nonzero values and their columns, row after row, and the number of each row's values."""

Place = Annotated[str, AfterValidator(check_place)]
"""Path of a file in the store, which it can't leave."""


class FileRecord(BaseModel):
    """Size and SHA-256 of a file of the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int = Field(ge=0)
    sha256: str


class PieceRecord(BaseModel):
    """Record of a shard's piece of a CSR matrix.

    Attributes
    ----------
    nonzeros
        Number of its values.
    file
        Record of its file; see `causcell.atlas.pieces`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nonzeros: int = Field(ge=0)
    file: FileRecord


class ShardRecord(BaseModel):
    """Record of a complete shard.

    Attributes
    ----------
    shard
        Place of the shard.
    rows
        Number of its rows.
    files
        Records of its files, by path in the store.
    pieces
        Records of its pieces of CSR matrices, by place in the store; left out of the text where there are none, as in
        earlier versions.
    unmatched, unseen
        Rows without a matching reference cell, and with combinations of labels never seen.
    seconds
        Time by stage: ``read``, ``encode``, ``sample``, ``write``.
    worker
        Host and process that made it.
    annotations
        Record of the file with its annotations, until they are put together with those of other shards; left out of
        the text where each shard has files of its own. See `causcell.atlas.annotation_pieces`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int = Field(ge=0)
    rows: int = Field(ge=1)
    files: dict[Place, FileRecord]
    unmatched: int
    unseen: Unseen
    seconds: dict[str, float]
    worker: str
    pieces: dict[Place, PieceRecord] = Field(default_factory=dict)
    annotations: FileRecord | None = None

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: each for name, each in dump(self).items() if name not in ("pieces", "annotations") or each}

    @property
    def bytes(self) -> int:
        """Bytes of its files and pieces."""
        pieces = [piece.file for piece in self.pieces.values()]
        pieces += [] if self.annotations is None else [self.annotations]
        return sum(file.bytes for file in (*self.files.values(), *pieces))


@dataclass(frozen=True)
class ShardArrays:
    """Arrays that are written by shards: of values, of ``obs``, and those of ``obs`` that perhaps are not.

    ``flat`` tells that files of values lie in one folder; see `shard_file`.
    """

    values: frozenset[str]
    obs: frozenset[str]
    perhaps: frozenset[str]
    flat: bool = False

    def are_named(self, files: Iterable[str], shard: int) -> bool:
        """Tell whether files are those of a shard, each of them and no other."""
        names = set(files)
        if self.flat:
            return names == {shard_file(place, shard, flat=True) for place in self.values}
        every = {shard_file(place, shard, flat=self.flat) for place in self.values} | {
            f"{name}/c/{shard}" for name in self.obs
        }
        return names <= every and every - names <= {f"{name}/c/{shard}" for name in self.perhaps}


def shard_file(place: str, shard: int, *, flat: bool) -> str:
    """Return the place of a shard's file of an array of values: of many shards all lie in one folder."""
    return f"{place}/c.{shard}.0" if flat else f"{place}/c/{shard}/0"


class PlanFit:
    """Tell whether records are of shards of a plan, of their rows, and name the files that such shards have.

    Parameters
    ----------
    plan
        The plan.
    arrays
        Arrays that are written by shards; `None` where these are not known.
    """

    def __init__(self, plan: Plan, arrays: ShardArrays | None) -> None:
        self._shards, self._arrays, self._grouped = plan.shards, arrays, plan.group is not None
        self._rows = plan.shard_rows
        self._last = plan.rows - (plan.shards - 1) * plan.shard_rows
        self._widths = {place: plan.arrays[place] for place in plan.sparse}

    def __call__(self, record: ShardRecord) -> bool:
        """Tell it of one record."""
        shard, rows, last = record.shard, record.rows, self._shards - 1
        if shard > last or rows != (self._last if shard == last else self._rows):
            return False
        if record.pieces.keys() != self._widths.keys() or (record.annotations is None) == self._grouped:
            return False
        for place, piece in record.pieces.items():
            if piece.nonzeros > rows * self._widths[place]:
                return False
        return self._arrays is None or self._arrays.are_named(record.files, shard)


def record_file(path: Path) -> FileRecord:
    """Return the record of a file as it is."""
    return FileRecord(bytes=path.stat().st_size, sha256=file_digest(path))


@contextlib.contextmanager
def raise_on_full_disk(place: str) -> Iterator[None]:
    """Raise `OutputFullError` for a disk, quota or file size that is exhausted."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise OutputFullError(
            f"there is no space left for {place!r} ({error.strerror}); what is finished is kept: free some space "
            "and run the same command again"
        ) from error
