"""Layout of an atlas's arrays, as the metadata of its store tell it: these may come from a stranger."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from causcell.atlas.plan import Plan
from causcell.atlas.records import ShardArrays
from causcell.atlas.storage import Storage

ROOT_METADATA = "zarr.json"
"""Name of the metadata of a node of the store."""


def shard_arrays(names: Collection[str] | None, plan: Plan) -> ShardArrays | None:
    """Return the arrays that are written by shards.

    Of ``obs`` they are those without a chunk among the files. Categories, which are written ahead, may have an empty
    chunk, of which there is no file. Of ``obsm`` they are all.

    Parameters
    ----------
    names
        Files of the store that belong to no shard; `None` where these can't be read, which `None` answers.
    plan
        Plan of the atlas.
    """
    if names is None:
        return None
    nodes = _nodes(names)
    groups = {str(PurePosixPath(node).parent) for node in nodes}
    whole = {name.rpartition("/c/")[0] for name in names}
    obs = {node for node in nodes - groups - whole if node.startswith("obs/")}
    ahead = {node for node in obs if node.count("/") > 1 and node.endswith("/categories")}
    if plan.group is not None:  # whose annotations are no files of shards
        return ShardArrays(frozenset(plan.dense), frozenset(), frozenset(), flat=True)
    values = {*plan.dense, *(node for node in nodes - groups if node.startswith("obsm/"))}
    return ShardArrays(frozenset(values), frozenset(obs), frozenset(ahead - {"obs/source_cell/categories"}))


def grouped_arrays(storage: Storage, names: Collection[str] | None, plan: Plan) -> tuple[str, ...]:
    """Return the arrays of annotations of which groups of shards have a file; see `shard_arrays`."""
    if plan.group is None:
        return ()
    nodes = sorted(_nodes(names or ()))
    found = (node for node in nodes if node.startswith(("obs/", "obsm/")) and node not in plan.arrays)
    return tuple(node for node in found if _is_sharded(read_layout(storage, node)))


def read_layout(storage: Storage, place: str) -> dict[str, Any]:
    """Return the metadata of an array of the store; nothing where they can't be read."""
    try:
        content = storage.read(f"{place}/{ROOT_METADATA}")
        fields = None if content is None else json.loads(content)
    except (ValueError, RecursionError, OSError):
        return {}
    return fields if isinstance(fields, dict) else {}


def strange_layouts(storage: Storage, plan: Plan) -> tuple[str, ...]:
    """Return the files of array metadata that are not of the plan's rows, columns and types."""
    strange = []
    for place in plan.dense:
        fields = read_layout(storage, place)
        stated = (fields.get("shape"), fields.get("data_type"))
        if stated != ([plan.rows, plan.arrays[place]], plan.array_dtype(place)):
            strange.append(f"{place}/{ROOT_METADATA}")
    for place in plan.sparse:
        attributes = read_layout(storage, place).get("attributes")
        stated_shape = attributes.get("shape") if isinstance(attributes, dict) else None
        if stated_shape != [plan.rows, plan.arrays[place]]:
            strange.append(f"{place}/{ROOT_METADATA}")
    return tuple(strange)


def _nodes(names: Collection[str]) -> set[str]:
    """Return the nodes of the store whose metadata are among files."""
    return {name.removesuffix(f"/{ROOT_METADATA}") for name in names if name.endswith(f"/{ROOT_METADATA}")}


def _is_sharded(layout: dict[str, Any]) -> bool:
    """Tell whether an array's files hold several chunks."""
    codecs = layout.get("codecs")
    first = codecs[0] if isinstance(codecs, list) and codecs else None
    return isinstance(first, dict) and first.get("name") == "sharding_indexed"
