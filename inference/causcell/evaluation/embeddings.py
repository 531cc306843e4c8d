"""Tables about concepts: labels read from their own embedding, and from embeddings that should not know them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causcell.concepts import UNEXPLAINED, UNLABELLED
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.predictor import Embeddings
from causcell.evaluation.probes import (
    classification_scores,
    cluster_cells,
    majority_rate,
    partition_agreement,
    probe_accuracy,
    transferred_accuracy,
)
from causcell.evaluation.table import Table

_COMPONENTS = 32


def tabulate_own_labels(data: EvaluationData) -> Table:
    """Read every concept's labels from its own embedding, beside a probe of principal components."""
    embeddings = data.test_embeddings
    components, _ = data.project_on_components(_COMPONENTS)
    training = data.fit_components(_COMPONENTS).transform(data.training_expression)
    rows: dict[str, dict[str, float | None]] = {}
    for i, name in enumerate(data.schema.names):
        truth = data.test_labels[:, i]
        if (truth == UNLABELLED).all():
            continue
        if embeddings is not None and name in embeddings.readings:
            scores = classification_scores(truth, embeddings.readings[name])
            rows[f"{name}: the model's own reading"] = {**scores}
        if embeddings is not None and name in embeddings.concepts:
            accuracy = probe_accuracy(embeddings.concepts[name], truth)
            rows[f"{name}: linear probe of its embedding"] = {"accuracy": accuracy}
        rows[f"{name}: linear probe of PCA-{_COMPONENTS}"] = {"accuracy": probe_accuracy(components, truth)}
        rows[f"{name}: linear probe of PCA-{_COMPONENTS}, of the cells learned from"] = {
            "accuracy": transferred_accuracy(training, data.training_labels[:, i], components, truth)
        }
        rows[f"{name}: most frequent label"] = {"accuracy": majority_rate(truth)}
    return Table.of(
        "Labels read from their own embeddings",
        rows,
        interpretation="How often a concept's label is read right; precision, recall and F1 are weighted by label "
        "frequency. Probes are fitted and tested on different judged cells (five folds), unless said to be of the "
        "cells learned from, as the model's own reading is.",
        limitations="Whether a wrong reading is the model's fault or the label's. No ceiling can be split off from "
        "real cells: a probe of principal components is what expression readily tells.",
    )


def tabulate_leakage(data: EvaluationData) -> Table:
    """Read every concept's labels from the embeddings of the other concepts and of the unexplained one."""
    names = data.schema.names
    embeddings = {} if data.test_embeddings is None else data.test_embeddings.concepts
    truth = {name: data.test_labels[:, i] for i, name in enumerate(names)}
    truth = {name: codes for name, codes in truth.items() if (codes != UNLABELLED).any()}
    rows: dict[str, dict[str, float | None]] = {}
    for source in (each for each in (*names, UNEXPLAINED) if each in embeddings):
        embedding = embeddings[source]
        rows[f"embedding of {source}"] = {
            name: probe_accuracy(embedding, codes) for name, codes in truth.items() if name != source
        }
        if source == UNEXPLAINED:
            rows[f"embedding of {source}, 15 neighbours"] = {
                name: probe_accuracy(embedding, codes, "neighbours") for name, codes in truth.items()
            }
    for source, codes in truth.items():
        one_hot = np.eye(codes.max() + 2)[codes]  # an unlabelled cell has a column too: the last
        rows[f"label of {source} itself"] = {
            name: probe_accuracy(one_hot, other) for name, other in truth.items() if name != source
        }
    rows["most frequent label"] = {name: majority_rate(codes) for name, codes in truth.items()}
    return Table.of(
        "Leakage: labels read from embeddings of other concepts",
        rows,
        interpretation="Accuracy of a fresh probe, linear or by neighbours, fitted and tested on different judged "
        "cells. At the rate of the most frequent label nothing is read; what the labels tell of one another (their "
        "rows) an embedding that holds just its own label tells too, and a child's embedding holds its parents' part.",
        limitations="Whether a stronger reader would find more: a probe that fails proves no independence.",
    )


def tabulate_finer_labels(data: EvaluationData, columns: Sequence[str]) -> Table:
    """Hold clusters of embeddings against labels that the model was not trained on.

    Parameters
    ----------
    data
        The model and its cells.
    columns
        Columns of ``obs`` with such labels.
    """
    obs = data.cells.obs.iloc[data.test_rows]
    components, _ = data.project_on_components(_COMPONENTS)
    found = data.test_embeddings or Embeddings({})
    embeddings = {f"embedding of {name}": found.concepts[name] for name in data.schema.names if name in found.concepts}
    if found.joint is not None:
        embeddings["all embeddings"] = found.joint
    embeddings[f"PCA-{_COMPONENTS}"] = components
    rows: dict[str, dict[str, float | None]] = {}
    for column in columns:
        codes = obs[column].astype("category").cat.codes.to_numpy()
        known = codes != UNLABELLED
        for name, embedding in embeddings.items():
            clusters = cluster_cells(embedding[known], len(np.unique(codes[known])))
            rows[f"{column}: {name}"] = {**partition_agreement(codes[known], clusters)}
    return Table.of(
        "Finer labels than were trained",
        rows,
        interpretation="Agreement of k-means clusters, as many as there are labels, with labels that the model never "
        "saw.",
        limitations="Whether the structure is there but not round: k-means finds round clusters of like size alone.",
    )
