"""Evaluation of a trained model on given cells: all tables, and the facts of the cells and the model."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from causcell._internal.choices import check_choice, suggest
from causcell.cells.backing import open_anndata
from causcell.cells.panel_cells import Reading
from causcell.concepts import Edge
from causcell.errors import ConfigurationError, UnknownConceptError, format_list
from causcell.evaluation.cases import Case, find_seen_cases, is_unseen
from causcell.evaluation.cell_maps import MAP_KINDS, CellMap, MapKind, map_interventions
from causcell.evaluation.cell_self_test import tabulate_cell_self_test
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.embeddings import tabulate_finer_labels, tabulate_leakage, tabulate_own_labels
from causcell.evaluation.expression import (
    tabulate_clusters,
    tabulate_markers,
    tabulate_mean_estimate,
    tabulate_samples,
)
from causcell.evaluation.leakage import tabulate_leakage_within
from causcell.evaluation.prediction_data import (
    Method,
    describe_predictions,
    list_silent_concepts,
    open_predictions,
    read_prediction_data,
)
from causcell.evaluation.predictions import PredictionReading, Source
from causcell.evaluation.report import format_page
from causcell.evaluation.scorer import check_scorer, tabulate_scorer
from causcell.evaluation.self_test import separate_self_tests
from causcell.evaluation.shifts import tabulate_effects
from causcell.evaluation.table import UNSEEN, Table
from causcell.evaluation.verdicts import judge_concepts
from causcell.generator import Generator
from causcell.repository.manifest import Manifest
from causcell.repository.verdicts import Verdict

if TYPE_CHECKING:
    import anndata

_OF_EMBEDDINGS = ("concepts", "leakage", "leakage within groups", "finer labels")
"""Kinds of tables that need embeddings."""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes
    ----------
    facts
        Numbers of cells given, left out, judged and learned from; the model's digest, panel, concepts and graph.
    tables
        Measures; a table of each kind. The last ones are what cheats reach; see `causcell.evaluation.self_test`.
    verdicts
        What the tables say of each concept; see `causcell.evaluation.verdicts`.
    maps
        By concept, cells under an intervention on it, or why there is no map; see `causcell.evaluation.cell_maps`.
    """

    facts: dict[str, Any]
    tables: list[Table]
    verdicts: list[Verdict] = field(default_factory=list)
    maps: dict[str, CellMap | str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """Show the report inside a notebook, in a frame of its own: its styles are not the notebook's."""
        page = format_page("Evaluation", self.facts, self.tables, self.verdicts, self.maps)
        return f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:40rem;border:0"></iframe>'


def evaluate(
    cells: anndata.AnnData | str | os.PathLike[str],
    generator: Generator | None = None,
    *,
    predictions: Source | Sequence[Source] | None = None,
    method: Method | None = None,
    reading: PredictionReading | None = None,
    finer: Sequence[str] = (),
    scale: str | None = None,
    layer: str | None = None,
    raw: bool = False,
    totals: str | None = None,
    round_counts: bool = False,
    allow_missing_genes: float = 0.0,
    replicate: str | None = None,
    scorer: str | None = None,
    maps: MapKind = "umap",
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a model, or the predictions of any method, on cells that it was not trained on.

    Parameters
    ----------
    cells
        Cells with labels; those that the model was trained on, by the digests of their names, are left out of all
        measures, and baselines learn from them. Where there are none, baselines learn from a random half.
    generator
        The model, on any engine; or else ``predictions``.
    predictions
        One or more files, or AnnData, of a method's predictions; see `causcell.evaluation.predictions`.
    method
        What predictions do not say of the method: concepts, edges, and which cells it was trained on.
    reading
        How predictions are read: what their rows are, and the scale of their values.
    finer
        Columns of ``obs`` with labels that the model was not trained on, to hold clusters of embeddings against.
    scale
        Scale of the cells' values (``counts`` or ``log1p``).
    layer, raw, totals, round_counts, allow_missing_genes
        How the cells' values are read; see `causcell.generator.Generator.counterfactual`.
    replicate
        Column of ``obs`` whose labels (donors, patients) are independent of each other: intervals of effects are taken
        over them, in place of over cells.
    scorer
        The field's scorer, ``cell-eval2``, on the same effects; see `causcell.evaluation.scorer`.
    maps
        Plane of the figures of cells under interventions: ``umap``, ``pca`` (also where umap-learn is not installed or
        real cells are fewer than 100), or ``none``.
    seed
        Seed of the choice of cells, of samples and of interventions.
    report
        Called with the name of each table that is begun, and of parts of those that take long.

    Raises
    ------
    ConfigurationError
        Both a model and predictions, or neither; no such plane of maps; predictions that do not say what they are; a
        metric of another package that can't be used, see `causcell.evaluation.register_metric`.
    DataError
        Fewer than 16 cells are left that the model was not trained on; predictions that can't be used, see
        `causcell.evaluation.prediction_rows.read_rows`.
    ExpressionError
        Cells or predictions on another scale than declared.
    UnknownConceptError
        A column of finer labels or of replicates that there is not.
    RuntimeUnavailableError
        The scorer is not installed.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     evaluation = evaluate(cells, generator)
    >>> evaluation.facts["cells"]["judged"]
    70
    >>> next(table.name for table in evaluation.tables if "model, mean estimate" in table.rows)
    'Mean estimate of the judged cells'
    """
    _check_predictor(generator, predictions, method, reading)
    check_choice(maps, MAP_KINDS, "maps")
    if scorer is not None:
        check_scorer(scorer)
    source = open_anndata(cells)
    check_columns(source, [*finer, *([] if replicate is None else [replicate])])
    of_cells = Reading(layer, raw, scale, totals, round_counts, allow_missing_genes)
    silent: list[str] = []
    with ExitStack() as opened:
        if generator is not None:
            data, facts = _read_model_data(generator, source, of_cells, seed)
        else:
            assert predictions is not None and method is not None
            how = PredictionReading() if reading is None else reading
            predicted = opened.enter_context(open_predictions(predictions, source, method, of_cells, how))
            data, counts = read_prediction_data(predicted, source, method, of_cells, seed=seed)
            facts = {"cells": counts, **describe_predictions(predicted, data)}
            silent = list_silent_concepts(predicted)
        tables = tabulate_test_cells(data, finer=finer, seed=seed, report=report)
        cases = find_seen_cases(data)
        tables += tabulate_interventions(data, cases, "Interventions", seed=seed, replicate=replicate, report=report)
        if scorer is not None:
            tables += tabulate_scorer(data, cases, scorer=scorer, seed=seed, report=report)
        tables = separate_self_tests(tables)
        verdicts = judge_concepts(tables, data.schema.names, silent=silent)
        drawn = map_interventions(data, cases, verdicts, maps, seed=seed, report=report)
        return Evaluation(facts, tables, verdicts, drawn)


def _check_predictor(
    generator: Generator | None, predictions: object, method: Method | None, reading: PredictionReading | None
) -> None:
    """Raise `ConfigurationError` unless a model is given, or predictions and what they do not say."""
    if (generator is None) == (predictions is None):
        raise ConfigurationError("give a model (models=) or predictions (predictions=) to evaluate: one of the two")
    if generator is not None and (method is not None or reading is not None):
        raise ConfigurationError(
            "concepts, edges, a split and how predictions are read are said for predictions; a model says them itself: "
            "leave them out"
        )
    if predictions is not None and method is None:
        raise ConfigurationError(
            "predictions do not say what the concepts are, nor which cells the method was trained on; give "
            "method=Method(concepts=['stim', 'cell_type'], split='split.csv')"
        )


def _read_model_data(
    generator: Generator, cells: anndata.AnnData, reading: Reading, seed: int
) -> tuple[EvaluationData, dict[str, Any]]:
    """Read the cells that a model is measured on, and the facts of both."""
    training_cells = generator.manifest.training_cells
    trained = int(training_cells.contain(cells.obs_names.astype(str).tolist()).sum())
    options = {"layer": reading.layer, "raw": reading.raw, **reading.bind_options}
    data = read_evaluation_data(generator, cells, scale=options.pop("expression"), seed=seed, **options)
    counts: dict[str, Any] = {
        "given": cells.n_obs,
        "left out, as the model was trained on them": trained,
        **data.counts,
    }
    if training_cells.hashes:
        counts["share of other cells left out with them"] = training_cells.mistaken
    return data, {"cells": counts, **describe_model(generator)}


def check_columns(cells: anndata.AnnData, columns: Sequence[str]) -> None:
    """Raise `UnknownConceptError` for columns that ``obs`` does not have."""
    absent = [column for column in columns if column not in cells.obs]
    if absent:
        raise UnknownConceptError(
            f"obs has no column {format_list(absent)}; {suggest(absent[0], cells.obs.columns)}its columns are "
            f"{format_list(cells.obs.columns, 40)}"
        )


def describe_model(generator: Generator) -> dict[str, Any]:
    """Return the facts of a model that a report states: its digest, engine, panel, concepts, edges and preset."""
    manifest = generator.manifest
    return {
        "model": {
            "digest": manifest.digest,
            "engine": generator.engine.description,
            "genes": len(manifest.genes.names),
            "concepts": {concept.name: len(concept.labels) for concept in manifest.concepts},
            "edges": [f"{each.parent}:{each.child}{_format_weight(each, manifest)}" for each in manifest.edges],
            **({} if manifest.mechanism == "linear" else {"mechanism": manifest.mechanism}),
            "default preset": manifest.default_preset,
        }
    }


def _format_weight(edge: Edge, manifest: Manifest) -> str:
    """Format an edge's weight; nothing where mechanisms are nonlinear, of which it does not tell what a cause does."""
    return f" ({edge.weight:g})" if manifest.mechanism == "linear" else ""


def tabulate_interventions(
    data: EvaluationData,
    cases: Sequence[Case],
    title: str,
    *,
    seed: int = 0,
    replicate: str | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Table]:
    """Make the tables of interventions, and that of the self-test of measures of cells.

    Combinations of labels that no training cell carries have tables of their own.

    Parameters
    ----------
    data
        The model and its cells.
    cases
        Shifts to predict.
    title
        Beginning of the tables' names.
    seed, replicate, report
        See `evaluate`.
    """
    unseen = [case for case in cases if is_unseen(data, case)]
    seen = [case for case in cases if not is_unseen(data, case)]
    tables = tabulate_effects(data, seen, title, seed=seed, replicate=replicate, report=report)
    apart = tabulate_effects(data, unseen, title, seed=seed, replicate=replicate, report=report)
    tables += [replace(each, name=f"Unseen combinations: {each.name.lower()}", kind=UNSEEN) for each in apart]
    if report is not None:
        report("cheats")
    test = tabulate_cell_self_test(data, cases, seed=seed)
    return [*tables, *([test] if test.rows else [])]


def tabulate_test_cells(
    data: EvaluationData,
    *,
    finer: Sequence[str] = (),
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[Table]:
    """Make every table but those of interventions.

    Parameters
    ----------
    data
        The model and its cells.
    finer, seed, report
        See `evaluate`.

    Returns
    -------
    Tables of labels, leakage (over all cells, within groups), the mean estimate, clusters, markers and samples, then of
    finer labels if there are any; one without a row is left out.
    """
    factual = data.with_factual()
    if factual is None:
        return []
    kinds: dict[str, Callable[[], Table]] = {
        "concepts": lambda: tabulate_own_labels(factual),
        "leakage": lambda: tabulate_leakage(factual),
        "leakage within groups": lambda: tabulate_leakage_within(factual, seed, report=report),
        "mean estimate": lambda: tabulate_mean_estimate(factual),
        "clusters": lambda: tabulate_clusters(factual, seed),
        "markers": lambda: tabulate_markers(factual, seed),
        "samples": lambda: tabulate_samples(factual, seed),
    }
    if finer:
        kinds["finer labels"] = lambda: tabulate_finer_labels(factual, finer)
    if factual.test_embeddings is None:
        kinds = {name: kind for name, kind in kinds.items() if name not in _OF_EMBEDDINGS}
    if factual.mean_estimate is None:
        del kinds["mean estimate"]
    tables = []
    for name, kind in kinds.items():
        if report is not None:
            report(name)
        tables.append(kind())
    return [table for table in tables if table.rows]
