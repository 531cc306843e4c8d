"""Tables about concepts: labels read from their own embedding, and from embeddings that should not know them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causcell.concepts import UNEXPLAINED, UNLABELLED
from causcell.evaluation.data import Subject
from causcell.evaluation.probes import (
    classification_scores,
    clusters,
    majority_rate,
    partition_agreement,
    probe_accuracy,
    transferred_accuracy,
)
from causcell.evaluation.table import Table

_COMPONENTS = 32


def own_labels(subject: Subject) -> Table:
    """Every concept's labels from its own embedding, beside a probe of principal components and the majority rate."""
    components, _ = subject.principal_components(_COMPONENTS)
    learned = subject.components(_COMPONENTS).transform(subject.expression[subject.learned])
    rows: dict[str, dict[str, float | None]] = {}
    for i, name in enumerate(subject.schema.names):
        truth = subject.truth[:, i]
        if (truth == UNLABELLED).all():
            continue
        own = subject.embedded.obsm[f"X_causcell_{name}"]
        told = subject.embedded.obs[f"{name}_predicted"].cat.codes.to_numpy()
        rows[f"{name}: the model's own reading"] = {**classification_scores(truth, told)}
        rows[f"{name}: linear probe of its embedding"] = {"accuracy": probe_accuracy(own, truth)}
        rows[f"{name}: linear probe of PCA-{_COMPONENTS}"] = {"accuracy": probe_accuracy(components, truth)}
        rows[f"{name}: linear probe of PCA-{_COMPONENTS}, of the cells learned from"] = {
            "accuracy": transferred_accuracy(learned, subject.labels[subject.learned, i], components, truth)
        }
        rows[f"{name}: most frequent label"] = {"accuracy": majority_rate(truth)}
    return Table.of(
        "Labels read from their own embeddings",
        rows,
        tells="How often a concept's label is read right; precision, recall and F1 are weighted by label frequency. "
        "Probes are fitted and tested on different judged cells (five folds), unless said to be of the cells learned "
        "from, as the model's own reading is.",
        silent="Whether a wrong reading is the model's fault or the label's. No ceiling can be split off from real "
        "cells: a probe of principal components is what expression readily tells.",
    )


def leakage(subject: Subject) -> Table:
    """Accuracy of every concept's labels read from the embeddings of the others and of the unexplained concept."""
    names = subject.schema.names
    truth = {name: subject.truth[:, i] for i, name in enumerate(names) if (subject.truth[:, i] != UNLABELLED).any()}
    rows: dict[str, dict[str, float | None]] = {}
    for source in (*names, UNEXPLAINED):
        embedding = subject.embedded.obsm[f"X_causcell_{source}"]
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
        tells="Accuracy of a fresh probe, linear or by neighbours, fitted and tested on different judged cells. At the "
        "rate of the most frequent label nothing is read; what the labels tell of one another (their rows) an "
        "embedding that holds just its own label tells too, and a child's embedding holds its parents' part.",
        silent="Whether a stronger reader would find more: a probe that fails proves no independence.",
    )


def finer_labels(subject: Subject, columns: Sequence[str]) -> Table:
    """Clusters of embeddings against labels that the model was not trained on."""
    obs = subject.cells.obs.iloc[subject.judged]
    components, _ = subject.principal_components(_COMPONENTS)
    embeddings = {f"embedding of {name}": subject.embedded.obsm[f"X_causcell_{name}"] for name in subject.schema.names}
    embeddings |= {
        "all embeddings": subject.embedded.obsm["X_causcell"],
        f"PCA-{_COMPONENTS}": components,
    }
    rows: dict[str, dict[str, float | None]] = {}
    for column in columns:
        codes = obs[column].astype("category").cat.codes.to_numpy()
        known = codes != UNLABELLED
        for name, embedding in embeddings.items():
            found = clusters(embedding[known], len(np.unique(codes[known])))
            rows[f"{column}: {name}"] = {**partition_agreement(codes[known], found)}
    return Table.of(
        "Finer labels than were trained",
        rows,
        tells="Agreement of k-means clusters, as many as there are labels, with labels that the model never saw.",
        silent="Whether the structure is there but not round: k-means finds round clusters of like size alone.",
    )
