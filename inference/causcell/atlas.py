"""The atlas: results written as an AnnData-zarr store (zarr v3, sharded), block by block.

The chunk is what a reader fetches, the shard what a writer commits. The form of the rows is that of `causcell.results`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.cells import Cells
from causcell.errors import ConfigurationError, listed
from causcell.expression import PanelReader
from causcell.generator import DTYPES
from causcell.output import new_folder
from causcell.results import result_obs, result_uns, result_var

if TYPE_CHECKING:
    import zarr

    from causcell.generator import Generator, Request

CHUNK_ROWS = 256
SHARD_ROWS = 8192


def write_atlas(
    generator: Generator,
    cells: Cells,
    reader: PanelReader,
    request: Request,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    progress: bool = False,
) -> int:
    """Generate and write an atlas; it appears at ``path`` when it is complete.

    Parameters
    ----------
    path
        The store, a folder that ends in ``.zarr``.
    dtype
        Of ``X``: ``float32``, or ``float16`` (half the bytes; values within 5e-4 of their size).

    Returns
    -------
    Rows written.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` already.
    """
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype {dtype!r} is not known; known are {listed(DTYPES)}")
    with new_folder(path) as staging:
        return _write(generator, cells, reader, request, staging, dtype, progress)


def _write(
    generator: Generator,
    cells: Cells,
    reader: PanelReader,
    request: Request,
    path: Path,
    dtype: str,
    progress: bool,
) -> int:
    import zarr
    from anndata.io import write_elem

    rows, genes = len(cells) * request.rows_per_cell, len(generator.preprocessing.genes)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    chunk = min(CHUNK_ROWS, rows)
    array = group.create_array(
        "X",
        shape=(rows, genes),
        dtype=dtype,
        chunks=(chunk, genes),
        shards=(min(SHARD_ROWS, -(-rows // chunk) * chunk) // chunk * chunk, genes),
        fill_value=0,
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    labels = _write_rows(array, generator.generate(cells, reader, request, progress=progress))
    obs = result_obs(generator, cells, request, labels)
    with warnings.catch_warnings():
        # notices to this code, not to its users: of zarr v3's strings and consolidated metadata, of anndata's defaults
        warnings.simplefilter("ignore")
        write_elem(group, "obs", obs)
        write_elem(group, "var", result_var(generator, reader))
        write_elem(group, "uns", {"causcell": result_uns(generator, request)})
        for empty in ("layers", "obsm", "varm", "obsp", "varp"):
            write_elem(group, empty, {})
        zarr.consolidate_metadata(group.store)
    return rows


def _write_rows(array: zarr.Array[Any], blocks: Iterator[Any]) -> np.ndarray:
    """Write expression shard by shard; the labels of all rows, int32 [rows x m]."""
    shard_rows = (array.shards or array.chunks)[0]
    buffer = np.empty((shard_rows, array.shape[1]), dtype=array.dtype)
    labels, filled, written = [], 0, 0
    for block in blocks:
        labels.append(block.labels)
        start = 0
        while start < len(block.expression):
            taken = min(shard_rows - filled, len(block.expression) - start)
            buffer[filled : filled + taken] = block.expression[start : start + taken]
            filled, start = filled + taken, start + taken
            if filled == shard_rows:
                array[written : written + filled] = buffer
                written, filled = written + filled, 0
    if filled:
        array[written : written + filled] = buffer[:filled]
    return np.concatenate(labels)
