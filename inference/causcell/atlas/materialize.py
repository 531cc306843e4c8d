"""Expression from an atlas of embeddings, bit for bit as if it had been stored.

The plan is that of the atlas of expression, so that the one can go on with what the other began.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.batching import pad_batch
from causcell._internal.remote import RemotePath, any_path
from causcell.atlas.annotations import KeptAnnotations
from causcell.atlas.events import OnEvent
from causcell.atlas.journal import Journal
from causcell.atlas.open import go_on
from causcell.atlas.plan import CHUNK_SIZE, SHARD_SIZE, Plan, plan_layout
from causcell.atlas.storage import Storage
from causcell.atlas.store_layout import strange_layouts
from causcell.atlas.task import ShardMaker
from causcell.atlas.write import AtlasSummary, write_atlas
from causcell.cells.columns import find_form, take_form
from causcell.cells.file_source import FileSource
from causcell.concepts import ConceptSchema
from causcell.counterfactual.label_columns import label_columns
from causcell.counterfactual.model import CounterfactualModel
from causcell.counterfactual.outputs import EMBEDDINGS, Prediction
from causcell.counterfactual.request import DType, Request
from causcell.counterfactual.targets import UNSEEN
from causcell.diffusion.solvers import Solver
from causcell.errors import AtlasError, ConfigurationError, format_list

if TYPE_CHECKING:
    import pandas as pd

_NO_FILES: dict[str, Any] = {"files": [], "layer": None, "where": None}
"""Origin of cells that are read from an atlas."""


def materialize_atlas(
    model: CounterfactualModel,
    embeddings: str | os.PathLike[str] | RemotePath,
    path: str | os.PathLike[str] | RemotePath,
    *,
    dtype: DType = "float32",
    layout: str | None = None,
    chunk_size: int = CHUNK_SIZE,
    shard_size: int = SHARD_SIZE,
    progress: bool = False,
    on_event: OnEvent | None = None,
) -> tuple[Plan, AtlasSummary]:
    """Write the atlas of expression that an atlas of embeddings stands for.

    Parameters
    ----------
    model
        The model that made the embeddings, with the same batch size.
    embeddings
        A finished atlas made with ``store="embeddings"``.
    path
        The store to write, a folder or URL that ends in ``.zarr``.
    dtype
        Type of the expression.
    layout, chunk_size, shard_size
        See `causcell.atlas.plan.make_plan`.
    progress, on_event
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
    journal = Journal(any_path(embeddings, "embeddings"))
    stored = journal.require_plan()
    if stored.request.store != "embeddings":
        raise AtlasError(
            f"{str(embeddings)!r} holds {stored.request.store}; give an atlas made with store='embeddings'"
        )
    if not journal.finished:
        raise AtlasError(f"{str(embeddings)!r} is not finished; run the command that makes it again")
    strange = strange_layouts(journal.storage, stored)
    if strange or len(journal.records(stored)) < stored.shards:
        why = format_list(strange) if strange else "shards are missing"
        raise AtlasError(f"{str(embeddings)!r} is not what its plan says ({why}); causcell verify tells what is wrong")
    if stored.model != model.manifest.digest:
        raise ConfigurationError(
            f"{str(embeddings)!r} was made with the model {stored.model[:12]}..., and this one is "
            f"{model.manifest.digest[:12]}...; give the one that it was made with"
        )
    plan = plan_layout(
        model,
        stored.cells,
        stored.source,
        replace(stored.request, store="expression", dtype=dtype),
        layout=layout,
        annotations=stored.annotations,
        chunk_size=chunk_size,
        shard_size=shard_size,
    )
    plan = go_on(any_path(path), plan, usual_layout=layout is None)
    model = plan.adapt(model)
    source = StoredEmbeddings.open(model, journal.storage, stored)
    annotations = None if stored.annotations is None else StoredAnnotations.open(journal.storage, stored)
    maker = ShardMaker(plan, any_path(path), model, source, annotations)
    return plan, write_atlas(maker, _NO_FILES, progress=progress, on_event=on_event)


@dataclass(frozen=True)
class StoredBatch:
    """Consecutive cells of an atlas of embeddings.

    Attributes
    ----------
    rows
        Their places among all cells.
    names
        str objects [n].
    endogenous
        float32 [n x interventions x draws x M x k].
    labels, numbers
        Label codes after the interventions, int32 [n x interventions x draws x m], and standardised numbers, float32
        [n x interventions x draws x c].
    library, panel_totals
        Not stored: counts are generated from cells.
    """

    rows: slice
    names: np.ndarray
    endogenous: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray | None
    library: None = None
    panel_totals: None = None


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings of an atlas. See `causcell.counterfactual.stream.EmbeddingSource`."""

    schema: ConceptSchema
    batch_size: int
    plan: Plan
    labels: np.ndarray
    numbers: np.ndarray | None
    missing: Sequence[str]
    obs: Any
    embeddings: Any

    @classmethod
    def open(cls, model: CounterfactualModel, storage: Storage, plan: Plan) -> StoredEmbeddings:
        """Open a finished atlas of embeddings; values are read as they are asked for."""
        import zarr
        from anndata.io import read_elem

        group: Any = zarr.open_group(storage.zarr(), mode="r")
        var = read_elem(group["var"])
        every = slice(0, None, plan.request.rows_per_cell)
        factual, numbers = _read_concepts(group["obs"], model.schema, plan.request, every, "_factual")
        missing = tuple(var.index[var["filled"]])
        return cls(model.schema, model.batch_size, plan, factual, numbers, missing, group["obs"], group[EMBEDDINGS])

    def __len__(self) -> int:
        return self.plan.cells

    def read(self, rows: slice) -> StoredBatch:
        """Read the rows of consecutive cells."""
        request, count = self.plan.request, rows.stop - rows.start
        here = slice(rows.start * request.rows_per_cell, rows.stop * request.rows_per_cell)
        shape = (count, len(request.interventions), request.draws)
        codes, numbers = _read_concepts(self.obs, self.schema, request, here)
        codes = codes.reshape(*shape, -1)
        for place, intervention in enumerate(request.interventions):
            for concept, code in intervention.targets:
                if code == UNSEEN:
                    codes[:, place, :, concept] = UNSEEN  # of a number that is no label, its column has no code
        return StoredBatch(
            rows,
            np.asarray(self.obs["source_cell/categories"][rows]).astype(object),
            np.asarray(self.embeddings[here]).reshape(*shape, self.schema.size, -1),
            codes,
            None if numbers is None else numbers.reshape(*shape, -1),
        )

    def encode(self, batch: StoredBatch) -> StoredBatch:
        """Pad the batch."""
        endogenous, labels = (pad_batch(array, self.batch_size) for array in (batch.endogenous, batch.labels))
        numbers = None if batch.numbers is None else pad_batch(batch.numbers, self.batch_size)
        return StoredBatch(batch.rows, batch.names, endogenous, labels, numbers)

    def predict(self, encoded: StoredBatch, keys: np.ndarray, request: Request, solver: Solver) -> Iterator[Prediction]:
        """Give the stored embeddings of every draw and intervention, interventions fastest."""
        matched = np.zeros(len(encoded.endogenous), dtype=bool)
        for draw in range(request.draws):
            for place in range(len(request.interventions)):
                z = np.ascontiguousarray(encoded.endogenous[:, place, draw])
                numbers = None if encoded.numbers is None else encoded.numbers[:, place, draw]
                yield Prediction(place, draw, z, z, encoded.labels[:, place, draw], matched, numbers)


def _read_concepts(
    obs: Any, schema: ConceptSchema, request: Request, rows: slice, suffix: str = ""
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read label codes, int32 [rows x m], and standardised numbers, float32 [rows x c] (or `None`), from ``obs``."""
    codes, numbers = [], []
    for column in label_columns(schema, request.interventions):
        name = f"{column.concept.name}{suffix}"
        found = column.read(np.asarray(obs[name if column.holds_numbers else f"{name}/codes"][rows]))
        codes.append(found[0])
        numbers += [] if found[1] is None else [found[1]]
    return np.stack(codes, axis=1).astype(np.int32), np.stack(numbers, axis=1) if numbers else None


@dataclass(frozen=True)
class StoredAnnotations:
    """Annotations that an atlas of embeddings keeps of its cells. See `causcell.atlas.annotations.AnnotationSource`."""

    rows: FileSource
    names: KeptAnnotations
    rows_per_cell: int
    var: pd.DataFrame

    @classmethod
    def open(cls, storage: Storage, plan: Plan) -> StoredAnnotations:
        """Open a finished atlas that keeps annotations; values are read as they are asked for."""
        import pandas as pd
        import zarr

        names = plan.annotations
        assert names is not None
        group: Any = zarr.open_group(storage.zarr(), mode="r")
        rows = FileSource(group, repr(storage.place), lambda: None, lambda place: list(group[place]))
        columns = rows.gene_columns()
        var = pd.DataFrame({name: take_form(columns[name], find_form(columns[name])) for name in names.var})
        return cls(rows, names, plan.request.rows_per_cell, var.set_axis(rows.genes))

    def read(self, rows: slice) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Read consecutive cells: columns of ``obs`` [n x columns], and elements of ``obsm`` [n x k] by name."""
        every = slice(rows.start * self.rows_per_cell, rows.stop * self.rows_per_cell, self.rows_per_cell)
        obsm = {name: array.read(every)[0] for name in self.names.obsm if (array := self.rows.embedding(name))}
        return self.rows.read_columns(list(self.names.obs), every), obsm
