"""Files of the shards of an atlas, with the same bytes as zarr's own writer.

A shard of values is a file of the sharding codec of zarr v3, `causcell.atlas.sharding`; of a matrix that is kept as CSR
it is a piece, `causcell.atlas.pieces`. A shard of an annotation is a file of one chunk, or a chunk of a file that many
shards have, `causcell.atlas.annotation_pieces`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from causcell.atlas.annotation_pieces import group_files, piece_name, write_piece
from causcell.atlas.journal import Journal
from causcell.atlas.pieces import count_bytes
from causcell.atlas.plan import Plan
from causcell.atlas.records import shard_file
from causcell.atlas.sharding import ShardFile, encode_chunk, read_chunks
from causcell.atlas.zarr_store import annotation_columns
from causcell.counterfactual.outputs import Rows

if TYPE_CHECKING:
    import pandas as pd


class ShardWriter(ShardFile):
    """Write the rows of one shard of a 2-d array as they come, into a file beside its place.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas.
    place
        Place of the array in the store.
    shard
        Place of the shard.
    """

    def __init__(self, journal: Journal, plan: Plan, place: str, shard: int) -> None:
        target = shard_file(place, shard, flat=plan.group is not None)
        chunk = (plan.chunk_rows, plan.arrays[place])
        super().__init__(target, journal.work, plan.array_dtype(place), chunk, _chunks(plan))


def read_shard(file: BinaryIO, plan: Plan, place: str) -> Iterator[np.ndarray]:
    """Read the chunks of a shard of a 2-d array, each [chunk rows x columns]; rows beyond the atlas are zero.

    Raises
    ------
    ValueError, RuntimeError, OSError
        The file is not of this form.
    """
    return read_chunks(file, plan.array_dtype(place), (plan.chunk_rows, plan.arrays[place]), _chunks(plan))


def _chunks(plan: Plan) -> int:
    return -(-plan.shard_rows // plan.chunk_rows)


def write_annotations(
    journal: Journal, plan: Plan, shard: int, obs: pd.DataFrame, obsm: Mapping[str, np.ndarray] | None = None
) -> dict[str, Path]:
    """Write a shard's part of ``obs``, and of annotations in ``obsm``.

    Returns
    -------
    Where each file is, beside its place, by where it belongs: a file an array, or one of all where shards are grouped.
    """
    chunks = _encode_annotations(plan, shard, obs, obsm or {})
    if plan.group is not None:
        return {piece_name(shard): write_piece(journal.work, chunks)}
    files = {}
    for array, place in group_files(chunks, shard).items():
        with tempfile.NamedTemporaryFile(dir=journal.work, delete=False) as file:
            file.write(chunks[array])
        files[place] = Path(file.name)
    return files


def _encode_annotations(plan: Plan, shard: int, obs: pd.DataFrame, obsm: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Encode a shard's chunk of each array of annotations, by the array's place."""
    chunks = {}
    for name, (kind, _, chunk) in annotation_columns(plan, obs).items():
        values = _annotation(obs, name)
        if name == "source_cell/codes":
            values = values.astype(np.int32) + np.int32(plan.cells_of(shard).start)
        chunks[f"obs/{name}"] = encode_chunk(_fill_chunk(values, chunk), kind)
    for name, values in obsm.items():
        chunks[f"obsm/{name}"] = encode_chunk(_fill_chunk(values, plan.shard_rows), str(values.dtype))
    return chunks


def encoded_bytes(
    plan: Plan, arrays: dict[str, Rows], obs: pd.DataFrame, obsm: Mapping[str, np.ndarray] | None = None
) -> tuple[int, int]:
    """Count the bytes on disk that some rows would take in the end, and while they are written.

    Parameters
    ----------
    plan
        Plan of the atlas.
    arrays
        Values of the rows, by place in the store.
    obs, obsm
        Annotations of the rows.
    """
    size = sum(len(encode_chunk(values, str(values.dtype))) for values in (obsm or {}).values())
    scratch = 0
    for place, rows in arrays.items():
        if place in plan.sparse:
            final, pieces = count_bytes(plan, place, rows)
            size, scratch = size + final, scratch + pieces - final
            continue
        for start in range(0, len(rows), plan.chunk_rows):
            size += len(encode_chunk(rows[start : start + plan.chunk_rows], plan.array_dtype(place)))
    for name, (kind, _, _) in annotation_columns(plan, obs).items():
        size += len(encode_chunk(_annotation(obs, name), kind))
    return size, size + max(scratch, 0)


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
