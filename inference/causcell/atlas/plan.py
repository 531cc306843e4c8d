"""The plan of an atlas: everything that decides what is in it, as one value with a digest.

Two runs with equal plans write the same bytes (on one machine), whoever makes which shard, so that one can go on where
the other was interrupted. Batch size and compute threads are part of it: they decide which values the vectorised loops
of the runtime leave over, whose last bit may differ. What changes no byte is not: paths, workers, and where the model
is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from causcell.cells.collection import AnyCells, AnyReader
from causcell.concepts import UNLABELLED, ConceptSchema, unseen_combinations
from causcell.counterfactual.request import Request
from causcell.errors import ConfigurationError, format_list
from causcell.generator import Generator
from causcell.randomness import cell_keys

CHUNK_SIZE = 2 * 10**6


SHARD_SIZE = 128 * 10**6


_SAMPLED_CELLS = 256


class SourceDigests(BaseModel):
    """SHA-256 of what the cells are.

    Attributes
    ----------
    names
        All cells' names, in order.
    labels
        All cells' labels of the model's concepts.
    genes
        The files' genes, in order.
    values
        Panel expression of up to 256 cells, evenly spaced: files that differ elsewhere alone are not told apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: str
    labels: str
    genes: str
    values: str


class Plan(BaseModel):
    """What an atlas is made of and how it is laid out.

    Attributes
    ----------
    version
        Of this form.
    model
        Digest of the model.
    genes
        Of its panel.
    cells, source
        Number of cells, and what they are.
    request
        What is made of each cell.
    arrays
        Columns of each array, by place in the store.
    batch_size
        Cells a network evaluation.
    threads
        Compute threads of each worker; `None` where the model is served.
    cells_per_shard
        A shard is whole cells; batches start anew with each.
    chunk_rows
        Rows of a chunk, which readers fetch whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    model: str
    genes: int
    cells: int
    source: SourceDigests
    request: Request
    arrays: dict[str, int]
    batch_size: int
    threads: int | None
    cells_per_shard: int
    chunk_rows: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Of the atlas."""
        return self.cells * self.request.rows_per_cell

    @property
    def shards(self) -> int:
        """Of the atlas."""
        return -(-self.cells // self.cells_per_shard)

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last, which may be shorter."""
        return self.cells_per_shard * self.request.rows_per_cell

    def cells_of(self, shard: int) -> slice:
        """Cells of a shard."""
        return slice(shard * self.cells_per_shard, min((shard + 1) * self.cells_per_shard, self.cells))

    @property
    def bytes_uncompressed(self) -> int:
        """Of the arrays of values."""
        return self.rows * sum(
            width * np.dtype(self.array_dtype(place)).itemsize for place, width in self.arrays.items()
        )

    def array_dtype(self, place: str) -> str:
        """Of an array: embeddings are always float32."""
        return "float32" if place.startswith("obsm/") else self.request.dtype

    def differences(self, other: Plan) -> list[str]:
        """What differs in another plan, for people."""
        mine, its = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{name} ({_short(mine.get(name))} there, {_short(its.get(name))} asked for)"
            for name in dict.fromkeys([*mine, *its])
            if mine.get(name) != its.get(name)
        ]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "interventions":
            flat["interventions"] = [each["name"] for each in value]
        elif isinstance(value, dict):
            flat |= _flat(value, "" if name in ("request", "settings") else f"{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:8]}..."
    return f"{len(value)}: {format_list(value, 4)}" if isinstance(value, list) else repr(value)


def make_plan(
    generator: Generator,
    cells: AnyCells,
    reader: AnyReader,
    request: Request,
    *,
    chunk_size: int = CHUNK_SIZE,
    shard_size: int = SHARD_SIZE,
) -> Plan:
    """The plan of an atlas.

    Parameters
    ----------
    chunk_size, shard_size
        Uncompressed bytes that readers fetch, and that are made and committed, at once; rounded to whole rows, cells
        and batches. A shard of embeddings is that of the expression that they stand for.

    Raises
    ------
    ConfigurationError
        A solver or seed that can't be used, or chunks larger than shards.
    """
    return plan_layout(
        generator,
        len(cells),
        digest_source(cells, reader, generator.schema),
        request,
        chunk_size=chunk_size,
        shard_size=shard_size,
    )


def plan_layout(
    generator: Generator,
    cells: int,
    source: SourceDigests,
    request: Request,
    *,
    chunk_size: int,
    shard_size: int,
) -> Plan:
    """The plan for a number of cells with these digests; see `make_plan`."""
    generator.build_solver(request.settings)  # what can't be used is told before anything is written
    cell_keys(request.seed, [""])
    if chunk_size > shard_size:
        raise ConfigurationError(f"chunks of {chunk_size} bytes are larger than shards of {shard_size}")
    arrays, genes = generator.array_widths(request.store), len(generator.preprocessing.genes)
    itemsize = np.dtype(request.dtype).itemsize
    row = max(arrays.values()) * (4 if request.store == "embeddings" else itemsize)
    cells_per_shard, chunk_rows = _layout(
        cells,
        request.rows_per_cell,
        generator.batch_size,
        chunk_size // row,
        shard_size // (genes * itemsize),
    )
    return Plan(
        model=generator.manifest.digest,
        genes=genes,
        cells=cells,
        source=source,
        request=request,
        arrays=arrays,
        batch_size=generator.batch_size,
        threads=generator.threads,
        cells_per_shard=cells_per_shard,
        chunk_rows=chunk_rows,
    )


def _layout(cells: int, rows_per_cell: int, batch_size: int, chunk_rows: int, shard_rows: int) -> tuple[int, int]:
    """Cells a shard and rows a chunk, near to what is wanted: whole batches a shard, whole chunks a shard."""
    per_shard = max(shard_rows // rows_per_cell, 1)
    if per_shard > batch_size:
        per_shard -= per_shard % batch_size
    if per_shard >= cells:
        return cells, min(max(chunk_rows, 1), cells * rows_per_cell)
    rows = per_shard * rows_per_cell
    return per_shard, max(size for size in range(1, max(min(chunk_rows, rows), 1) + 1) if rows % size == 0)


def digest_source(cells: AnyCells, reader: AnyReader, schema: ConceptSchema) -> SourceDigests:
    """Digests of cells as they are read for a model."""
    spaced = np.unique(np.linspace(0, len(cells) - 1, min(_SAMPLED_CELLS, len(cells))).astype(int)).tolist()
    # the reader of one source goes with its cells, that of a collection with the collection
    values = (cells.read(reader, slice(row, row + 1)).tobytes() for row in spaced)  # type: ignore[arg-type]
    return SourceDigests(
        names=_digest([cells.name_digests.astype("<u8").tobytes()]),
        labels=_digest([cells.labels(schema).astype("<i4").tobytes()]),
        genes=_digest("\n".join([str(part.key), *part.genes]).encode() for part in cells.parts),
        values=_digest(values),
    )


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def unseen_rows(labels: np.ndarray, request: Request, schema: ConceptSchema, combinations: np.ndarray) -> int:
    """Counterfactual rows whose labels no training cell carries together, as far as labels tell.

    A descendant's label after the intervention is not known before it is generated, and matches any.
    """
    distinct, counts = np.unique(labels, axis=0, return_counts=True)
    unseen = 0
    for intervention in request.interventions:
        if not intervention.targets:
            continue
        after = distinct.copy()
        if request.mode != "isolated":
            after[:, sorted(schema.descendants(concept for concept, _ in intervention.targets))] = UNLABELLED
        for concept, label in intervention.targets:
            after[:, concept] = label
        unseen += int(counts[unseen_combinations(after, combinations)].sum())
    return unseen * request.kept_draws
