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
from causcell.evaluation.registry import Better
from causcell.evaluation.scores import Role, score_rows
from causcell.evaluation.table import LABELS, Table

_COMPONENTS = 32


def tabulate_own_labels(data: EvaluationData, *, probes: bool = True) -> Table:
    """Read every concept's labels from its own embedding, beside a probe of principal components.

    Parameters
    ----------
    data
        The model and its cells.
    probes
        Fit probes too, which take most of the time; without them there is the model's own reading alone.
    """
    embeddings = data.test_embeddings
    rows: dict[str, dict[str, float | None]] = {}
    errors: dict[str, dict[str, float]] = {}
    roles: dict[str, Role] = {}
    groups: dict[str, str] = {}
    for i, name in enumerate(data.schema.names):
        truth = data.test_labels[:, i]
        if (truth == UNLABELLED).all():
            continue
        found: list[tuple[str, Role, dict[str, float | None]]] = []
        if embeddings is not None and name in embeddings.readings:
            reading: dict[str, float | None] = {**classification_scores(truth, embeddings.readings[name])}
            found.append(("the model's own reading", "model", reading))
        if probes:
            found += _probe_labels(data, i)
        found.append(("most frequent label", "trivial", {"accuracy": majority_rate(truth)}))
        for reader, role, values in found:
            row, accuracy = f"{name}: {reader}", values["accuracy"]
            rows[row], roles[row], groups[row] = values, role, name
            if accuracy is not None:
                errors[row] = {"accuracy": _binomial_error(accuracy, truth)}
    better: dict[str, Better] = dict.fromkeys(("accuracy", "precision", "recall", "F1"), "higher")
    spreads = {row: error["accuracy"] for row, error in errors.items() if roles[row] == "replicate"}
    return Table.of(
        "Labels read from their own embeddings",
        rows,
        interpretation="How often a concept's label is read right; precision, recall and F1 are weighted by label "
        "frequency. Probes are fitted and tested on different judged cells (five folds), unless said to be of the "
        "cells learned from, as the model's own reading is. Scores: 0 is the most frequent label, 1 the better probe "
        "of principal components.",
        limitations="Whether a wrong reading is the model's fault or the label's. No ceiling can be split off from "
        "real cells: a probe of principal components is what expression readily tells.",
        errors=errors,
        roles=roles,
        scores=score_rows(rows, roles, better, groups=groups, spreads={"accuracy": max(spreads.values(), default=0.0)}),
        kind=LABELS,
        groups=groups,
    )


def _binomial_error(accuracy: float, truth: np.ndarray) -> float:
    """Return the standard error of an accuracy over the labelled cells, of codes [n] (Agresti and Coull 1998)."""
    cells = int((truth != UNLABELLED).sum())
    share = (accuracy * cells + 2) / (cells + 4)
    return float(np.sqrt(share * (1 - share) / (cells + 4)))


def _probe_labels(data: EvaluationData, concept: int) -> list[tuple[str, Role, dict[str, float | None]]]:
    """Probe a concept's embedding, and principal components, for its labels: reader, role, values."""
    truth, name = data.test_labels[:, concept], data.schema.names[concept]
    components, _ = data.project_on_components(_COMPONENTS)
    training = data.fit_components(_COMPONENTS).transform(data.training_expression)
    transferred = transferred_accuracy(training, data.training_labels[:, concept], components, truth)
    found: list[tuple[str, Role, dict[str, float | None]]] = [
        (f"linear probe of PCA-{_COMPONENTS}", "replicate", {"accuracy": probe_accuracy(components, truth)}),
        (f"linear probe of PCA-{_COMPONENTS}, of the cells learned from", "replicate", {"accuracy": transferred}),
    ]
    if data.test_embeddings is not None and name in data.test_embeddings.concepts:
        own = {"accuracy": probe_accuracy(data.test_embeddings.concepts[name], truth)}
        found.insert(0, ("linear probe of its embedding", "model", own))
    return found


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
    components, _ = data.project_on_components(_COMPONENTS)
    everything, chance = f"PCA-{_COMPONENTS}", "most frequent label"
    rows[everything] = {name: probe_accuracy(components, codes) for name, codes in truth.items()}
    rows[chance] = {name: majority_rate(codes) for name, codes in truth.items()}
    roles: dict[str, Role] = {row: "model" for row in rows if row.startswith("embedding of ")}
    roles |= {everything: "trivial", chance: "replicate"}
    spreads = {name: _binomial_error(rows[chance][name] or 0.0, codes) for name, codes in truth.items()}
    return Table.of(
        "Leakage: labels read from embeddings of other concepts",
        rows,
        roles=roles,
        scores=score_rows(rows, roles, dict.fromkeys(truth, "lower"), spreads=spreads),
        interpretation="Accuracy of a fresh probe, linear or by neighbours, fitted and tested on different judged "
        "cells. At the rate of the most frequent label nothing is read; what the labels tell of one another (their "
        "rows) an embedding that holds just its own label tells too, and a child's embedding holds its parents' part. "
        "Scores: 0 is as much as principal components tell, 1 is nothing.",
        limitations="Whether a stronger reader would find more: a probe that fails proves no independence.",
        better=dict.fromkeys(truth, "lower"),
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
    parts: dict[str, Role] = dict.fromkeys(embeddings, "model")
    embeddings[f"PCA-{_COMPONENTS}"], parts[f"PCA-{_COMPONENTS}"] = components, "replicate"
    rows: dict[str, dict[str, float | None]] = {}
    roles: dict[str, Role] = {}
    groups: dict[str, str] = {}
    rng = np.random.default_rng(0)
    for column in columns:
        if column in data.schema.names:  # of numbers, those of their bins
            codes = data.schema.encode(obs[[column]])[:, data.schema.index(column)]
        else:
            codes = obs[column].astype("category").cat.codes.to_numpy()
        known = codes != UNLABELLED
        for name, embedding in embeddings.items():
            clusters = cluster_cells(embedding[known], len(np.unique(codes[known])))
            row = f"{column}: {name}"
            rows[row], roles[row], groups[row] = {**partition_agreement(codes[known], clusters)}, parts[name], column
        row, shuffled = f"{column}: labels shuffled", rng.permutation(codes[known])
        rows[row], roles[row], groups[row] = {**partition_agreement(codes[known], shuffled)}, "trivial", column
    return Table.of(
        "Finer labels than were trained",
        rows,
        roles=roles,
        scores=score_rows(rows, roles, {"NMI": "higher", "ARI": "higher"}, groups=groups),
        groups=groups,
        interpretation="Agreement of k-means clusters, as many as there are labels, with labels that the model never "
        "saw. Scores: 0 is labels shuffled, 1 is clusters of principal components.",
        limitations="Whether the structure is there but not round: k-means finds round clusters of like size alone.",
        better={"NMI": "higher", "ARI": "higher"},
    )
