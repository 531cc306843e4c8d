"""The atlas as an AnnData-zarr store (zarr v3, sharded): its metadata, written ahead of all values.

Metadata do not depend on values, so all are made at the start, the root's put in place at the end: an unfinished store
does not open. The files of values are those of `causcell.atlas.shards`. Only the number of nonzero values of a CSR
matrix is not known before they are made: what says it is put in place with the root's metadata.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.own_settings import own_settings
from causcell.atlas.journal import ROOT_METADATA, Journal
from causcell.atlas.plan import Plan
from causcell.atlas.sharding import BLOSC_OPTIONS, ZSTD_LEVEL
from causcell.errors import AtlasError

if TYPE_CHECKING:
    import pandas as pd

LARGEST_INT32 = 2**31 - 1

_DATAFRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0"}
_CATEGORICAL = {"encoding-type": "categorical", "encoding-version": "0.2.0"}
_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
_STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
_DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
_ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}


def write_metadata(
    journal: Journal,
    plan: Plan,
    example: pd.DataFrame,
    var: pd.DataFrame,
    uns: dict[str, Any],
    obsm: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Put everything in place but the shards, the root's metadata, and those that say how many values are nonzero.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas.
    example
        ``obs`` of some rows: its columns and their types.
    var, uns
        ``var`` and ``uns`` of the atlas.
    obsm
        Annotations in ``obsm`` of some rows: their columns and types.
    """
    staging = journal.work / "metadata"
    shutil.rmtree(staging, ignore_errors=True)
    with warnings.catch_warnings(), own_settings():
        # notices to this code, not to its users: of zarr v3's strings and consolidated metadata, of anndata's defaults
        warnings.simplefilter("ignore")
        _describe(staging, plan, example, obsm or {}, var, uns)
    names = {str(path.relative_to(staging)): path for path in staging.rglob("*") if path.is_file()}
    names = {name: path for name, path in names.items() if name not in list_counting(plan)}
    places = {name: journal.place_of(name) for name in names}
    records = journal.storage.put({places[name]: staged for name, staged in names.items()})
    shutil.rmtree(staging)
    journal.commit_metadata({name: records[place] for name, place in places.items()})


def _describe(
    path: Path,
    plan: Plan,
    example: pd.DataFrame,
    obsm: Mapping[str, np.ndarray],
    var: pd.DataFrame,
    uns: dict[str, Any],
) -> None:
    import anndata
    import zarr
    from anndata.io import write_elem
    from zarr.codecs import BloscCodec, ZstdCodec

    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(_ANNDATA)
    for element in ("layers", "obsm", "varm", "obsp", "varp"):
        group.create_group(element, attributes=_DICT)
    shard_rows = -(-plan.shard_rows // plan.chunk_rows) * plan.chunk_rows  # a single shard may end within a chunk
    for place in plan.dense:
        width = plan.arrays[place]
        group.create_array(
            place,
            shape=(plan.rows, width),
            dtype=plan.array_dtype(place),
            chunks=(plan.chunk_rows, width),
            shards=(shard_rows, width),
            attributes=dict(_ARRAY),
            chunk_key_encoding=None if plan.group is None else {"name": "default", "separator": "."},
            compressors=[ZstdCodec(level=ZSTD_LEVEL)],
            fill_value=0,
        )
    of_values: dict[str, Any] = {"chunks": (plan.chunk_nonzeros,), "shards": (plan.file_nonzeros,), "fill_value": 0}
    of_values["compressors"] = [BloscCodec(**BLOSC_OPTIONS, shuffle="shuffle")]
    for place in plan.sparse:
        matrix = group.create_group(place, attributes=_CSR | {"shape": [plan.rows, plan.arrays[place]]})
        matrix.create_array("data", shape=(0,), dtype=plan.array_dtype(place), **of_values)
        matrix.create_array("indices", shape=(0,), dtype="int32", **of_values)
        matrix.create_array("indptr", shape=(plan.rows + 1,), dtype="int32", **of_values)
    for name, values in obsm.items():
        width, rows = values.shape[1], plan.shard_rows
        shape, chunks = (plan.rows, width), (rows, width)
        _create_array(group, f"obsm/{name}", plan.group, shape=shape, dtype=values.dtype, chunks=chunks)
    obs = group.create_group(
        "obs", attributes=_DATAFRAME | {"column-order": [str(name) for name in example], "_index": "_index"}
    )
    for name in example:
        kind = example[name].dtype
        if _is_categorical(example, name):
            obs.create_group(name, attributes=_CATEGORICAL | {"ordered": bool(kind.ordered)})
        elif is_nullable(kind):
            obs.create_group(name, attributes=_nullable(kind))
    for name, (kind, size, chunk) in annotation_columns(plan, example).items():
        _create_array(obs, name, plan.group, shape=(size,), dtype=kind, chunks=(chunk,))
    for name in example:
        if _is_categorical(example, name) and name != "source_cell":
            labels = example[name].cat.categories
            write_elem(obs[name], "categories", labels.to_numpy(dtype=object if labels.dtype.kind == "O" else None))
    with anndata.settings.override(allow_write_nullable_strings=True):
        write_elem(group, "var", var)
        write_elem(group, "uns", uns)
    zarr.consolidate_metadata(group.store)


def index_dtype(nonzeros: int) -> str:
    """Return the type of a CSR matrix's columns and row ends: one for both, which SciPy's functions need."""
    return "int32" if nonzeros <= LARGEST_INT32 else "int64"


def list_counting(plan: Plan) -> tuple[str, ...]:
    """List the files of metadata that say how many values of CSR matrices are nonzero, or are of a type by that."""
    return tuple(f"{place}/{array}/{ROOT_METADATA}" for place in plan.sparse for array in ("data", "indices", "indptr"))


def counted_metadata(journal: Journal, plan: Plan, nonzeros: Mapping[str, int]) -> dict[str, bytes]:
    """Return the metadata that say how many values of CSR matrices are nonzero, and the root's, by place in the store.

    Parameters
    ----------
    journal, plan
        Journal and plan of the atlas, whose other metadata are in place.
    nonzeros
        Number of nonzero values, by place of the matrix.

    Raises
    ------
    AtlasError
        The root's metadata that were kept aside can't be read.
    """
    aside = f"{journal.place}/{journal.place_of(ROOT_METADATA)}"
    if not plan.sparse:
        content = journal.storage.read(journal.place_of(ROOT_METADATA))
        if content is None:
            raise AtlasError(f"{aside} is gone; generate {journal.place!r} again")
        return {ROOT_METADATA: content}
    files = {}
    try:
        root = journal.read(journal.place_of(ROOT_METADATA))
        nodes = root["consolidated_metadata"]["metadata"]
        for name in list_counting(plan):
            place, array, _ = name.rsplit("/", 2)
            node, count = nodes[f"{place}/{array}"], nonzeros[place]
            if array != "indptr":
                node["shape"] = [count]
            if array != "data":
                node["data_type"] = index_dtype(count)
            files[name] = _to_json(node)
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise AtlasError(
            f"{aside} is not what was written ({error!r}); causcell verify withdraws "
            "it, and the next run writes it again"
        ) from error
    return files | {ROOT_METADATA: _to_json(root)}


def _to_json(fields: Any) -> bytes:
    """Write metadata as zarr does."""
    return json.dumps(fields, indent=2).encode()


def _create_array(
    group: Any, name: str, grouped: int | None, *, dtype: Any, chunks: tuple[int, ...], **options: Any
) -> None:
    """Create an array of annotations, which is written by shards, one chunk each, or in files of a group's chunks."""
    from zarr.codecs import ZstdCodec

    text = dtype == "str"
    if grouped is not None:
        options["shards"] = (chunks[0] * grouped, *chunks[1:])
    group.create_array(
        name,
        dtype=dtype,
        chunks=chunks,
        compressors=[ZstdCodec(level=ZSTD_LEVEL)],
        fill_value="" if text else np.dtype(dtype).type(0),
        attributes=dict(_STRINGS if text else _ARRAY),
        **options,
    )


def is_nullable(kind: Any) -> bool:
    """Tell whether a column's type has missing values beside its values: text, whole numbers, or True and False."""
    import pandas as pd

    return not isinstance(kind, np.dtype | pd.CategoricalDtype)


def _nullable(kind: Any) -> dict[str, str]:
    names = {"string": "string-array", "boolean": "boolean"}
    return {"encoding-type": f"nullable-{names.get(kind.name, 'integer')}", "encoding-version": "0.1.0"}


def _is_categorical(obs: pd.DataFrame, name: str) -> bool:
    import pandas as pd

    return isinstance(obs[name].dtype, pd.CategoricalDtype)


def annotation_columns(plan: Plan, example: pd.DataFrame) -> dict[str, tuple[str, int, int]]:
    """Return type, length and chunk of each array of ``obs`` that is written by shards, by its name there.

    The categories of ``source_cell`` are the cells' names, so they too come shard by shard.
    """
    rows, shard = plan.rows, plan.shard_rows
    columns = {"_index": ("str", rows, shard), "source_cell/categories": ("str", plan.cells, plan.cells_per_shard)}
    for name in example:
        if name == "source_cell":
            columns["source_cell/codes"] = ("int32", rows, shard)
        elif _is_categorical(example, name):
            columns[f"{name}/codes"] = (str(example[name].cat.codes.dtype), rows, shard)
        elif is_nullable(example[name].dtype):
            kind = getattr(example[name].dtype, "numpy_dtype", "str")
            columns[f"{name}/values"], columns[f"{name}/mask"] = (str(kind), rows, shard), ("bool", rows, shard)
        else:
            kind = example[name].dtype
            columns[str(name)] = ("str" if kind.kind == "O" else str(kind), rows, shard)
    return columns
