"""Concept embeddings of cells, as AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.batching import batches, pad_batch
from causcell._internal.prefetch import map_ordered, prefetch
from causcell.cells.panel_cells import CellBatch, PanelCells
from causcell.concepts import UNEXPLAINED
from causcell.counterfactual.model import CounterfactualModel
from causcell.errors import CausCellWarning, format_list
from causcell.repository.manifest import logits_name

if TYPE_CHECKING:
    import anndata

_READ_AHEAD = 2


def embed_cells(
    model: CounterfactualModel, cells: PanelCells, *, key_added: str = "X_causcell", progress: bool = False
) -> anndata.AnnData:
    """Embed all cells; see `causcell.generator.Generator.embed`, which opens them."""
    import anndata
    from tqdm.auto import tqdm

    schema, count = model.schema, len(cells)
    exogenous, endogenous = [], []
    logits: dict[str, list[np.ndarray]] = {name: [] for name in schema.names}
    with tqdm(total=count, desc="embedding", unit="cell", disable=not progress) as bar:
        for size, mean, outputs in _embed(model, cells):
            exogenous.append(mean[:size])
            endogenous.append(outputs["endogenous"][:size])
            for name in schema.names:
                logits[name].append(outputs[logits_name(name)][:size])
            bar.update(size)
    z = np.concatenate(endogenous)
    result = anndata.AnnData(obs=cells.cells.obs.copy())
    result.obsm[key_added] = z.reshape(count, -1)
    for i, name in enumerate((*schema.names, UNEXPLAINED)):
        result.obsm[f"{key_added}_{name}"] = z[:, i]
    result.obsm[f"{key_added}_exogenous"] = np.concatenate(exogenous).reshape(count, -1)
    replaced = [f"{name}_predicted" for name in schema.names if f"{name}_predicted" in result.obs]
    if replaced:
        warnings.warn(
            f"obs has columns {format_list(replaced)} already; the result has the model's own in their place",
            CausCellWarning,
            stacklevel=3,
        )
    for name in schema.names:
        codes = np.concatenate(logits[name]).argmax(axis=1)
        result.obs[f"{name}_predicted"] = schema.label_names(codes, name)
    result.uns["causcell"] = model.provenance()
    return result


def _embed(model: CounterfactualModel, cells: PanelCells) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Give size, exogenous means and outputs of the SCM of each batch, in the cells' order."""

    def embed(batch: CellBatch) -> tuple[int, np.ndarray, dict[str, np.ndarray]]:
        mean = model.encode(pad_batch(batch.expression, model.batch_size)).mean
        return len(batch.names), mean, model.scm.factual(mean)

    read = prefetch((cells.read(rows) for rows in batches(len(cells), model.batch_size)), _READ_AHEAD)
    return map_ordered(embed, read, model.engine.concurrency)
