"""Concept embeddings of cells, as AnnData."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.batching import batches, pad_batch
from causcell._internal.prefetch import map_ordered, prefetch
from causcell._internal.stages import progress_bar
from causcell._internal.telling import warn
from causcell.cells.belongings import read_without_values
from causcell.cells.panel_cells import CellBatch, PanelCells
from causcell.concepts import UNEXPLAINED
from causcell.counterfactual.label_columns import label_columns
from causcell.counterfactual.model import CounterfactualModel
from causcell.repository.manifest import logits_name

if TYPE_CHECKING:
    import anndata

_READ_AHEAD = 2


def embed_cells(
    model: CounterfactualModel,
    cells: PanelCells,
    into: anndata.AnnData | None = None,
    *,
    key_added: str = "X_causcell",
    progress: bool = False,
) -> anndata.AnnData:
    """Embed all cells; see `causcell.generator.Generator.embed`, which opens them.

    Parameters
    ----------
    model, cells
        The model, and cells bound to it.
    into
        The AnnData of these cells that takes the embeddings; by default one of all that belongs to them but values.
    key_added, progress
        As in `causcell.generator.Generator.embed`.
    """
    schema, count, model = model.schema, len(cells), model.with_full_batches(len(cells))
    exogenous, endogenous, predicted = [], [], []
    with progress_bar(total=count, desc="embedding", unit="cell", disable=not progress) as bar:
        for size, mean, outputs in _embed(model, cells):
            exogenous.append(mean[:size])
            endogenous.append(outputs["endogenous"][:size])
            predicted.append(_predict_labels(model, outputs, size))
            bar.update(size)
    z = np.concatenate(endogenous)
    obsm = {key_added: z.reshape(count, -1)}
    obsm |= {f"{key_added}_{name}": z[:, i] for i, name in enumerate((*schema.names, UNEXPLAINED))}
    obsm[f"{key_added}_exogenous"] = np.concatenate(exogenous).reshape(count, -1)
    codes, numbers = (np.concatenate(parts) for parts in zip(*predicted, strict=True))
    obs = {
        f"{column.concept.name}_predicted": column.values(codes[:, column.index], numbers)
        for column in label_columns(schema, ())
    }
    result = read_without_values(cells.cells) if into is None else into
    _warn_of_replaced(result, obs, obsm, model.manifest.digest)
    for name, labels in obs.items():
        result.obs[name] = labels
    result.obsm.update(obsm)
    result.uns["causcell"] = model.provenance()
    return result


def _warn_of_replaced(result: anndata.AnnData, obs: Iterable[str], obsm: Iterable[str], digest: str) -> None:
    """Warn of what was there by the names of the result's own, unless the same model had put it there."""
    made = result.uns.get("causcell")
    if isinstance(made, Mapping) and made.get("model_digest") == digest and "store" not in made:
        return
    replaced = [f"obs[{name!r}]" for name in obs if name in result.obs]
    replaced += [f"obsm[{name!r}]" for name in obsm if name in result.obsm]
    replaced += ["uns['causcell']"] if made is not None else []
    if replaced:
        warn(f"the cells have {', '.join(replaced)} already; the result has the model's own in their place")


def _predict_labels(
    model: CounterfactualModel, outputs: Mapping[str, np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return label codes, int64 [size x m], and standardised numbers, float32 [size x c], read from embeddings."""
    schema = model.schema
    codes = np.stack([outputs[logits_name(name)][:size].argmax(axis=1) for name in schema.names], axis=1)
    numbers = [model.scm.predict_numbers(concept, outputs)[:size] for concept in schema.numeric]
    return codes, np.stack(numbers, axis=1) if numbers else np.empty((size, 0), dtype=np.float32)


def _embed(model: CounterfactualModel, cells: PanelCells) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Give size, exogenous means and outputs of the SCM of each batch, in the cells' order."""

    def embed(batch: CellBatch) -> tuple[int, np.ndarray, dict[str, np.ndarray]]:
        mean = model.encode(pad_batch(batch.expression, model.batch_size)).mean
        return len(batch.names), mean, model.scm.factual(mean)

    read = prefetch((cells.read(rows) for rows in batches(len(cells), model.batch_size)), _READ_AHEAD)
    return map_ordered(embed, read, model.engine.concurrency)
