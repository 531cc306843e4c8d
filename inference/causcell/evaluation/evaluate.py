"""Evaluation of a trained model on given cells: all tables, and what was judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causcell.cells.backing import open_anndata
from causcell.errors import UnknownConceptError, format_list
from causcell.evaluation.data import Subject, read_subject
from causcell.evaluation.embeddings import finer_labels, leakage, own_labels
from causcell.evaluation.expression import cluster_agreement, markers, mean_estimate, samples
from causcell.evaluation.shifts import effects, seen_cases
from causcell.evaluation.table import Table
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes
    ----------
    facts
        Cells given, left out, judged and learned from; the model's digest, panel, concepts and graph.
    tables
        The measures.
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
    scale, layer
        What the values are, and where.
    seed
        Of choices, samples and interventions.
    report
        Called with the name of each table that is begun.

    Raises
    ------
    DataError
        Too few cells are left to judge.
    UnknownConceptError
        A column of finer labels that there is not.
    """
    source = open_anndata(cells) if isinstance(cells, str | os.PathLike) else cells
    check_columns(source, finer)
    trained = int(generator.manifest.training_cells.contain(source.obs_names.astype(str).tolist()).sum())
    subject = read_subject(generator, source, scale=scale, layer=layer, seed=seed)
    facts = {
        "cells": {
            "given": source.n_obs,
            "left out, as the model was trained on them": trained,
            "judged": len(subject.judged),
            "learned from by baselines": len(subject.learned),
        },
        **model_facts(generator),
    }
    tables = judged_tables(subject, finer=finer, seed=seed, report=report)
    tables += effects(subject, seen_cases(subject), "Interventions", seed=seed)
    return Evaluation(facts, tables)


def check_columns(cells: anndata.AnnData, columns: Sequence[str]) -> None:
    """Raise `UnknownConceptError` for columns that ``obs`` does not have."""
    absent = [column for column in columns if column not in cells.obs]
    if absent:
        raise UnknownConceptError(
            f"obs has no column {format_list(absent)}; its columns are {format_list(cells.obs.columns, 40)}"
        )


def model_facts(generator: Generator) -> dict[str, Any]:
    """What a report says of the model."""
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


def judged_tables(
    subject: Subject,
    *,
    finer: Sequence[str] = (),
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[Table]:
    """Every table but those of interventions."""
    kinds: dict[str, Callable[[], Table]] = {
        "concepts": lambda: own_labels(subject),
        "leakage": lambda: leakage(subject),
        "mean estimate": lambda: mean_estimate(subject),
        "clusters": lambda: cluster_agreement(subject, seed),
        "markers": lambda: markers(subject, seed),
        "samples": lambda: samples(subject, seed),
    }
    if finer:
        kinds["finer labels"] = lambda: finer_labels(subject, finer)
    tables = []
    for name, kind in kinds.items():
        if report is not None:
            report(name)
        tables.append(kind())
    return [table for table in tables if table.rows]
