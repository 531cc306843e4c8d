"""Expression from an atlas of embeddings, bit for bit as if it had been stored.

The plan is that of the atlas of expression, so that the one can go on with what the other began.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from causcell._internal.batching import batches, pad_batch
from causcell._internal.prefetch import StageClock, map_ordered, prefetch
from causcell.atlas.journal import Journal
from causcell.atlas.plan import CHUNK_SIZE, SHARD_SIZE, Plan, plan_layout
from causcell.atlas.write import Written, run_plan
from causcell.cells.collection import Cells
from causcell.concepts import ConceptSchema
from causcell.counterfactual.outputs import EMBEDDINGS
from causcell.counterfactual.request import DType
from causcell.counterfactual.stream import Block
from causcell.errors import AtlasError, ConfigurationError
from causcell.generator import Generator
from causcell.randomness import CellNoise, cell_keys


def materialize_atlas(
    generator: Generator,
    embeddings: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    dtype: DType = "float32",
    chunk_size: int = CHUNK_SIZE,
    shard_size: int = SHARD_SIZE,
    progress: bool = False,
) -> tuple[Plan, Written]:
    """Write the atlas of expression that an atlas of embeddings stands for.

    Parameters
    ----------
    generator
        Of the model that made the embeddings, with the same batch size.
    embeddings
        A finished atlas made with ``store="embeddings"``.
    dtype
        Of the expression.
    path, chunk_size, shard_size
        See `causcell.atlas.write.write_atlas`.

    Raises
    ------
    AtlasError
        There is no finished atlas of embeddings.
    ConfigurationError
        It was made with another model.
    OutputError
        See `causcell.atlas.write.write_atlas`.
    """
    journal = Journal(Path(embeddings))
    stored = journal.require_plan()
    if stored.request.store != "embeddings":
        raise AtlasError(
            f"{str(embeddings)!r} holds {stored.request.store}; give an atlas made with --store embeddings"
        )
    if not journal.finished:
        raise AtlasError(f"{str(embeddings)!r} is not finished; run the command that makes it again")
    if stored.model != generator.manifest.digest:
        raise ConfigurationError(
            f"{str(embeddings)!r} was made with the model {stored.model[:12]}..., and this one is "
            f"{generator.manifest.digest[:12]}...; give the one that it was made with"
        )
    plan = plan_layout(
        generator,
        stored.cells,
        stored.source,
        replace(stored.request, store="expression", dtype=dtype),
        chunk_size=chunk_size,
        shard_size=shard_size,
    )
    inputs = Embedded.open(generator, Path(embeddings), stored)
    return plan, run_plan(plan, inputs, path, progress=progress)


class StoredCells:
    """Names and labels of the cells of an atlas. See `causcell.cells.collection.CellTable`."""

    layer: str | None = None
    where: str | None = None

    def __init__(self, group: Any, plan: Plan) -> None:
        self._obs, self._plan = group["obs"], plan

    @property
    def parts(self) -> tuple[Cells, ...]:
        """None: the atlas is no file of measured cells."""
        return ()

    def __len__(self) -> int:
        return self._plan.cells

    def names_of(self, rows: slice) -> np.ndarray:
        """Names of consecutive cells, str objects."""
        return np.asarray(self._obs["source_cell/categories"][rows]).astype(object)

    def labels(self, schema: ConceptSchema) -> np.ndarray:
        """The cells' own label codes, int32 [n x m]."""
        every = slice(0, None, self._plan.request.rows_per_cell)
        codes = [np.asarray(self._obs[f"{name}_factual/codes"][every]) for name in schema.names]
        return np.stack(codes, axis=1).astype(np.int32)

    def labels_after(self, schema: ConceptSchema, cells: slice) -> np.ndarray:
        """Label codes of the rows of some cells, int32 [rows x m]."""
        per_cell = self._plan.request.rows_per_cell
        rows = slice(cells.start * per_cell, cells.stop * per_cell)
        codes = [np.asarray(self._obs[f"{name}/codes"][rows]) for name in schema.names]
        return np.stack(codes, axis=1).astype(np.int32)


@dataclass(frozen=True)
class Embedded:
    """Cells with stored embeddings of every row. See `causcell.atlas.task.Inputs`."""

    generator: Generator
    cells: StoredCells
    missing: Sequence[str]
    embeddings: Any

    @classmethod
    def open(cls, generator: Generator, path: Path, plan: Plan) -> Embedded:
        """From an atlas."""
        import zarr
        from anndata.io import read_elem

        group = zarr.open_group(path, mode="r")
        var = read_elem(group["var"])
        return cls(generator, StoredCells(group, plan), tuple(var.index[var["filled"]]), group[EMBEDDINGS])

    def blocks(self, plan: Plan, ranges: Iterable[slice], clock: StageClock) -> Iterator[Block]:
        """Expression of ranges of cells, block by block."""
        generator, request = self.generator, plan.request
        solver = generator.build_solver(request.settings)
        size, genes = generator.batch_size, len(generator.preprocessing.genes)
        shape = (len(request.interventions), request.draws, generator.schema.size, -1)

        def read() -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
            for within in ranges:
                for rows in batches(within.stop - within.start, size):
                    cells = slice(within.start + rows.start, within.start + rows.stop)
                    with clock("read"):
                        first, last = cells.start * request.rows_per_cell, cells.stop * request.rows_per_cell
                        stored = np.asarray(self.embeddings[first:last]).reshape(cells.stop - cells.start, *shape)
                        labels = self.cells.labels_after(generator.schema, cells)
                    yield cells, stored, labels

        def decoded(batch: tuple[slice, np.ndarray, np.ndarray]) -> Block:
            cells, stored, labels = batch
            with clock("sample"):
                keys = pad_batch(cell_keys(request.seed, self.cells.names_of(cells)), size)
                endogenous = pad_batch(stored, size)
                expression = np.empty((len(stored), *shape[:2], genes), dtype=request.dtype)
                for draw in range(request.draws):
                    noise = CellNoise(keys, genes, draw)
                    for i in range(len(request.interventions)):
                        z = np.ascontiguousarray(endogenous[:, i, draw])
                        expression[:, i, draw] = generator.decode(z, noise, solver, request.dtype)[: len(stored)]
            return Block(cells, {"X": expression.reshape(-1, genes)}, labels, np.zeros(len(labels), dtype=bool))

        return map_ordered(decoded, prefetch(read(), 2), generator.engine.concurrency)
