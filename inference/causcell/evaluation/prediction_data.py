"""Data of an evaluation of predictions: who was trained on what is said by a split, and scales are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.cells.panel_cells import Reading
from causcell.cells.split import TEST, TRAINING, VALIDATION, Split, assign_parts
from causcell.concept_columns import schema_from_obs
from causcell.concepts import as_pairs
from causcell.errors import ConfigurationError, DataError, UnknownConceptError, format_list
from causcell.evaluation.data import MIN_TEST_ROWS, EvaluationData, gather_evaluation_data
from causcell.evaluation.prediction_scale import check_prediction_scale
from causcell.evaluation.predictions import JudgedCells, PredictionReading, Predictions, Source
from causcell.preprocessing import check_scale

if TYPE_CHECKING:
    import anndata

_ROWS_COMPARED = 512


@dataclass(frozen=True)
class Method:
    """Facts of a method that its predictions do not tell.

    Attributes
    ----------
    concepts
        Columns of ``obs`` of the cells that hold the concepts' labels.
    edges
        Causal edges, ``PARENT:CHILD``.
    split
        Which cells the method was trained on: the part of each cell by name, see `causcell.cells.split.read_split`.
    part
        Column of ``obs`` that holds the parts, in place of ``split``.
    """

    concepts: Sequence[str]
    edges: Sequence[str] = ()
    split: Split | None = None
    part: str | None = None

    def find_parts(self, cells: anndata.AnnData) -> np.ndarray:
        """Find the part of each cell, str objects [n]: ``train``, ``choose`` or ``report``.

        Raises
        ------
        ConfigurationError
            Neither a split nor a column, or both.
        UnknownConceptError
            There is no such column.
        DataError
            A cell without a part, or an unknown part.
        """
        if (self.split is None) == (self.part is None):
            raise ConfigurationError(
                "predictions do not say which cells the method was trained on; give a table of cells and parts, train "
                "or test (split='split.csv'), or the column of obs that holds the parts (part='split'): one of the two"
            )
        names = np.asarray(cells.obs_names.astype(str), dtype=object)
        if self.split is not None:
            return assign_parts(names, self.split)
        if self.part not in cells.obs:
            raise UnknownConceptError(
                f"part={self.part!r} is no column of obs; its columns are {format_list(cells.obs.columns, 40)}"
            )
        return assign_parts(names, dict(zip(names, cells.obs[self.part].astype(str), strict=True)))


def open_predictions(
    predictions: Source | Sequence[Source],
    cells: anndata.AnnData,
    method: Method,
    reading: Reading,
    how: PredictionReading,
) -> Predictions:
    """Open predictions for the cells that they are judged by; see `Predictions` for what is refused.

    Parameters
    ----------
    predictions
        One or more files of a method.
    cells
        The cells.
    method
        Concepts, edges, and which cells were trained on.
    reading
        How the cells' values are read; counts, if it does not say.
    how
        How the predictions are read.
    """
    if not method.concepts:
        raise ConfigurationError(
            "predictions do not say what the concepts are; name the columns of obs that hold their labels (concepts=), "
            "and the causal edges where there are any (edges=)"
        )
    schema = schema_from_obs(cells.obs, method.concepts, as_pairs(method.edges, "parent:child", ":"))
    genes = (cells.raw if reading.raw and cells.raw is not None else cells).var_names
    judged = JudgedCells(
        cells.obs_names.astype(str),
        schema.encode(cells.obs),
        tuple(genes.astype(str)),
        check_scale(reading.expression or "counts"),
        reading.totals,
    )
    return Predictions(predictions, judged, schema, how)


def read_prediction_data(
    predictions: Predictions, cells: anndata.AnnData, method: Method, reading: Reading, *, seed: int = 0
) -> tuple[EvaluationData, dict[str, Any]]:
    """Read the cells that predictions are judged by, and those that baselines learn from.

    Parameters
    ----------
    predictions
        Open predictions.
    cells, method, reading
        As given to `open_predictions`.
    seed
        Seed of the choice of cells where there are many; see `causcell.evaluation.row_choice.choose_rows`.

    Returns
    -------
    The data; and the numbers of cells that a report states.

    Raises
    ------
    DataError
        Fewer than 16 test cells, or no test cell that was predicted.
    ExpressionError
        Predictions on another scale than the cells; see `check_prediction_scale`.
    """
    rng = np.random.default_rng(seed)
    part = method.find_parts(cells)
    test, training = np.flatnonzero(part == TEST), np.flatnonzero(part == TRAINING)
    _require_test_cells(predictions, part, cells.obs_names)
    facts = {
        "given": cells.n_obs,
        "left out, as the method was trained on them": len(training),
        "left out, as the method was chosen by them": int((part == VALIDATION).sum()),
        "predicted and left out": int((part[np.unique(predictions.rows.cell)] != TEST).sum()),
    }
    if not len(training):  # trained elsewhere: baselines have to learn from some
        training, test = (np.sort(half) for half in np.array_split(rng.permutation(test), 2))
    reading = Reading(**{**reading.__dict__, "expression": reading.expression or "counts"})
    data = gather_evaluation_data(predictions, cells, reading, test_rows=test, training_rows=training, rng=rng)
    facts |= data.counts
    _compare_scales(predictions, data)
    return data, facts


def _require_test_cells(predictions: Predictions, part: np.ndarray, names: Sequence[str]) -> None:
    count = int((part == TEST).sum())
    if count < MIN_TEST_ROWS:
        raise DataError(
            f"{count} of {len(part)} cells are test cells by the split; an evaluation needs at least {MIN_TEST_ROWS}: "
            "give held-out cells the part 'test'"
        )
    predicted = np.unique(predictions.rows.cell)
    if not (part[predicted] == TEST).any():
        trained = predicted[part[predicted] == TRAINING]
        raise DataError(
            f"none of the {len(predicted)} cells of the predictions is a test cell: {len(trained)} of them are cells "
            f"that the method was trained on ({format_list(np.asarray(names)[trained[:8]])}), and nothing is judged by "
            "those; predict cells whose part is 'test'"
        )


def _compare_scales(predictions: Predictions, data: EvaluationData) -> None:
    """Compare up to 512 predicted test cells with the real ones, for each intervention and estimate."""
    cells = data.cells[data.test_rows]
    title, usual = ", ".join(predictions.titles), True
    for estimate in predictions.estimates:
        for intervention in predictions.rows.interventions:
            do = intervention.texts(data.schema)
            rows = np.flatnonzero(predictions.covers(cells, do, estimate))
            rows = rows[:: -(-len(rows) // _ROWS_COMPARED) or 1]
            if len(rows):
                predicted = predictions.predict(cells[rows], do, estimate=estimate)
                assert predicted is not None  # each is covered
                real = data.expression[data.test_rows[rows]]
                usual &= check_prediction_scale(predicted, real, title, announce=usual)  # one warning says it


def describe_predictions(predictions: Predictions, data: EvaluationData) -> dict[str, Any]:
    """Return the facts of predictions that a report states: files, rows, estimate, genes, concepts and edges."""
    rows = predictions.rows
    facts: dict[str, Any] = {
        "files": list(predictions.titles),
        "rows": len(rows.cell),
        "cells": len(np.unique(rows.cell)),
        "interventions": [each.name for each in rows.interventions],
        "rows are": list(predictions.estimates),
        "genes": len(predictions.preprocessing.genes),
        "genes left out, as the cells lack them": len(predictions.left_out_genes),
        "concepts": {concept.name: len(concept.labels) for concept in data.schema.concepts},
        "edges": [f"{edge.parent}:{edge.child}" for edge in data.schema.edges],
        "mode": predictions.modes[0],
    }
    return {"predictions": facts, "not answered": list_unanswered(predictions, data)}


def list_silent_concepts(predictions: Predictions) -> list[str]:
    """List the concepts that no row intervenes on, all else equal."""
    acted = {target[0] for each in predictions.rows.interventions for target in each.targets if len(each.targets) == 1}
    return [name for i, name in enumerate(predictions.schema.names) if i not in acted]


def list_unanswered(predictions: Predictions, data: EvaluationData) -> list[str]:
    """List what an evaluation asks and these predictions do not answer, a sentence each, with the reason."""
    found = []
    factual = data.with_factual()
    if factual is None:
        found.append(
            "mean estimates, clusters, markers and samples of factual cells: fewer than 16 test cells have a row whose "
            "intervention is 'factual'"
        )
    elif "mean" not in predictions.estimates:
        found.append("the mean estimate of each cell: the rows are samples")
    elif "sample" not in predictions.estimates:
        found.append(
            "samples as a distribution, and counterfactual cells by their distance: the rows are mean estimates"
        )
    if not data.predicts_factual:
        found.append(
            "effects against the method's own factual cells: it predicts none, so that real source cells are taken "
            "off, whose noise is in the real shift too: correlations come out too high"
        )
    if not predictions.has_embeddings:
        found.append("labels read from embeddings, and leakage: there is no obsm['X_causcell_<concept>']")
    joint = [each.name for each in predictions.rows.interventions if len(each.targets) > 1]
    if joint:
        found.append(f"joint interventions ({format_list(joint)}): effects are judged of one concept at a time")
    silent = list_silent_concepts(predictions)
    if silent:
        found.append(f"interventions on {format_list(silent)}: there is no row of one")
    return found
