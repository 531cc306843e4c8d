"""Evaluation of a trained model on given cells: all tables, and the facts of the cells and the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causcell._internal.choices import suggest
from causcell.cells.backing import open_anndata
from causcell.errors import UnknownConceptError, format_list
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.embeddings import tabulate_finer_labels, tabulate_leakage, tabulate_own_labels
from causcell.evaluation.expression import (
    tabulate_clusters,
    tabulate_markers,
    tabulate_mean_estimate,
    tabulate_samples,
)
from causcell.evaluation.leakage import tabulate_leakage_within
from causcell.evaluation.shifts import find_seen_cases, tabulate_effects
from causcell.evaluation.table import Table
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes
    ----------
    facts
        Numbers of cells given, left out, judged and learned from; the model's digest, panel, concepts and graph.
    tables
        Measures; a table of each kind.
    """

    facts: dict[str, Any]
    tables: list[Table]


def evaluate(
    cells: anndata.AnnData | str | os.PathLike[str],
    generator: Generator,
    *,
    finer: Sequence[str] = (),
    scale: str | None = None,
    layer: str | None = None,
    raw: bool = False,
    totals: str | None = None,
    round_counts: bool = False,
    allow_missing_genes: float = 0.0,
    replicate: str | None = None,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a model on cells that it was not trained on.

    Parameters
    ----------
    cells
        Cells with labels; those that the model was trained on, by the digests of their names, are left out of all
        measures, and baselines learn from them. Where there are none, baselines learn from a random half.
    generator
        The model, on any engine.
    finer
        Columns of ``obs`` with labels that the model was not trained on, to hold clusters of embeddings against.
    scale
        Scale of the cells' values (``counts`` or ``log1p``).
    layer, raw, totals, round_counts, allow_missing_genes
        How the cells' values are read; see `causcell.generator.Generator.counterfactual`.
    replicate
        Column of ``obs`` whose labels (donors, patients) are independent of each other: intervals of effects are taken
        over them, in place of over cells.
    seed
        Seed of the choice of cells, of samples and of interventions.
    report
        Called with the name of each table that is begun.

    Raises
    ------
    ConfigurationError
        A metric of another package can't be used; see `causcell.evaluation.register_metric`.
    DataError
        Fewer than 16 cells are left that the model was not trained on.
    UnknownConceptError
        A column of finer labels or of replicates that there is not.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     evaluation = evaluate(cells, generator)
    >>> evaluation.facts["cells"]["judged"]
    70
    >>> sorted(evaluation.tables[2].rows)
    ['PCA-128', 'PCA-32', 'mean of all cells', 'mean of each bulk_labels', 'model, mean estimate']
    """
    source = open_anndata(cells)
    check_columns(source, [*finer, *([] if replicate is None else [replicate])])
    trained = int(generator.manifest.training_cells.contain(source.obs_names.astype(str).tolist()).sum())
    data = read_evaluation_data(
        generator,
        source,
        scale=scale,
        layer=layer,
        raw=raw,
        totals=totals,
        round_counts=round_counts,
        allow_missing_genes=allow_missing_genes,
        seed=seed,
    )
    facts = {
        "cells": {
            "given": source.n_obs,
            "left out, as the model was trained on them": trained,
            "judged": len(data.test_rows),
            "learned from by baselines": len(data.training_rows),
        },
        **describe_model(generator),
    }
    tables = tabulate_test_cells(data, finer=finer, seed=seed, report=report)
    tables += tabulate_effects(data, find_seen_cases(data), "Interventions", seed=seed, replicate=replicate)
    return Evaluation(facts, tables)


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
            "edges": [f"{edge.parent}:{edge.child} ({edge.weight:g})" for edge in manifest.edges],
            "default preset": manifest.default_preset,
        }
    }


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
    kinds: dict[str, Callable[[], Table]] = {
        "concepts": lambda: tabulate_own_labels(data),
        "leakage": lambda: tabulate_leakage(data),
        "leakage within groups": lambda: tabulate_leakage_within(data, seed),
        "mean estimate": lambda: tabulate_mean_estimate(data),
        "clusters": lambda: tabulate_clusters(data, seed),
        "markers": lambda: tabulate_markers(data, seed),
        "samples": lambda: tabulate_samples(data, seed),
    }
    if finer:
        kinds["finer labels"] = lambda: tabulate_finer_labels(data, finer)
    tables = []
    for name, kind in kinds.items():
        if report is not None:
            report(name)
        tables.append(kind())
    return [table for table in tables if table.rows]
