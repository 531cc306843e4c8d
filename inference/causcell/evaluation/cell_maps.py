"""Maps of an intervention: real, factual and counterfactual cells in one plane, as the report's figures show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causcell.concepts import UNLABELLED
from causcell.diffusion.solvers import Estimate
from causcell.errors import RuntimeUnavailableError
from causcell.evaluation.cases import Case
from causcell.evaluation.data import EvaluationData
from causcell.plot.maps import place_on_umap
from causcell.plot.shared import stored_colours
from causcell.repository.verdicts import Verdict

MapKind = Literal["umap", "pca", "none"]
"""Plane of the maps: a UMAP, the first two principal components, or no map."""

MAP_KINDS: tuple[MapKind, ...] = ("umap", "pca", "none")

_MOST_CELLS = 500
_FEW_CELLS = 100
"""Real cells below which a UMAP, whose neighbourhoods hold 15 cells, says nothing."""

_MOST_MAPS = 3


@dataclass(frozen=True, eq=False)
class MappedCells:
    """Cells of one kind on a map.

    Attributes
    ----------
    places
        Places, float32 [n x 2].
    labels
        Codes into `CellMap.labels`, int [n]; those that a counterfactual cell had before.
    """

    places: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class CellMap:
    """Real, factual and counterfactual cells of one intervention in one plane.

    Attributes
    ----------
    concept, source, target
        ``do(concept = target)`` on cells that carry ``source``.
    axes
        Name of the plane's axes, ``UMAP`` or ``PC``.
    why
        Why it is no UMAP, where it is not.
    column, labels, colors
        Concept that colours the cells, its labels, and the colours of them that scanpy stored, "" where it did not.
    sources, targets
        Real cells that carry ``source``, and ``target``.
    factual
        The source cells as the model makes them; `None` where nobody predicts them.
    counterfactual
        The source cells under the intervention.
    estimate
        What the last two are: ``sample`` or ``mean``.
    """

    concept: str
    source: str
    target: str
    axes: str
    why: str
    column: str
    labels: tuple[str, ...]
    colors: tuple[str, ...]
    sources: MappedCells
    targets: MappedCells
    factual: MappedCells | None
    counterfactual: MappedCells
    estimate: str


def map_interventions(
    data: EvaluationData,
    cases: Sequence[Case],
    verdicts: Sequence[Verdict],
    kind: MapKind = "umap",
    *,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> dict[str, CellMap | str]:
    """Map an intervention on each concept: that on the label whose real cells are most.

    Parameters
    ----------
    data
        Whose predictions, and the cells.
    cases
        Shifts that were judged; their cells are mapped, at most 500 of a kind.
    verdicts
        An intervention that is not usable is not shown.
    kind
        The plane; where umap-learn is not installed, or real cells are fewer than 100, principal components.
    seed
        Seed of the map and of samples.
    report
        Called with the name of each map that is begun.

    Returns
    -------
    By concept that has a case: the map, or why there is none.

    """
    unusable = {each.concept for each in verdicts if each.usable is False and each.combinations == "seen"}
    maps: dict[str, CellMap | str] = {}
    for index in dict.fromkeys(case.concept for case in cases):
        name = data.schema.names[index]
        if kind == "none":
            maps[name] = "No map of cells was asked for."
        elif name in unusable:
            maps[name] = "No map of cells: the verdict is that this concept is not to be intervened on."
        elif sum(isinstance(each, CellMap) for each in maps.values()) >= _MOST_MAPS:
            maps[name] = f"No map of cells: the report draws those of {_MOST_MAPS} concepts."
        else:
            if report is not None:
                report(f"map of {name}")
            maps[name] = _map_concept(data, [case for case in cases if case.concept == index], kind, seed)
    return maps


def _map_concept(data: EvaluationData, cases: Sequence[Case], kind: MapKind, seed: int) -> CellMap | str:
    """Map the intervention on the label that most real cells of these cases carry."""
    counts: dict[int, int] = {}
    for case in cases:
        counts[case.target] = counts.get(case.target, 0) + len(case.target_rows)
    target = max(counts, key=counts.__getitem__)
    chosen = [case for case in cases if case.target == target]
    concept = data.schema.concepts[chosen[0].concept]
    rows = [
        _spaced(np.unique(np.concatenate([getattr(case, part) for case in chosen])))
        for part in ("source_rows", "target_rows")
    ]
    made, estimate = _generate(data, rows[0], {concept.name: concept.labels[target]}, seed)
    if made is None:
        return "No map of cells: there is no prediction of each of them."
    factual = _generate_factual(data, rows[0], estimate, seed)
    real = data.expression[np.concatenate(rows)]
    values = [real, made] if factual is None else [real, made, factual]
    places, axes, why = _place(values, kind, seed)
    of_cells = data.labels[:, data.stratum_concept]
    labels = data.schema.concepts[data.stratum_concept].labels
    colors = stored_colours(data.cells, data.stratum_name)
    before = of_cells[rows[0]]
    return CellMap(
        concept.name,
        concept.labels[chosen[0].source],
        concept.labels[target],
        axes,
        why,
        data.stratum_name,
        tuple(labels),
        tuple(colors.get(label, "") for label in labels),
        MappedCells(places[0][: len(before)], before),
        MappedCells(places[0][len(before) :], of_cells[rows[1]]),
        None if factual is None else MappedCells(places[2], before),
        MappedCells(places[1], before),
        estimate,
    )


def _spaced(rows: np.ndarray) -> np.ndarray:
    return rows if len(rows) <= _MOST_CELLS else rows[np.linspace(0, len(rows) - 1, _MOST_CELLS).astype(int)]


def _generate(
    data: EvaluationData, rows: np.ndarray, do: dict[str, str], seed: int
) -> tuple[np.ndarray | None, Estimate]:
    """Return samples of the cells under the intervention, else means of them, and which of the two."""
    mode = data.predictor.modes[0]
    estimates: tuple[Estimate, ...] = ("sample", "mean")
    for estimate in estimates:
        made = data.predictor.predict(data.cells[rows], do, estimate=estimate, mode=mode, seed=seed)
        if made is not None:
            return np.asarray(made), estimate
    return None, "mean"


def _generate_factual(data: EvaluationData, rows: np.ndarray, estimate: Estimate, seed: int) -> np.ndarray | None:
    if not data.predictor.covers(data.cells[rows], {}, estimate).all():
        return None
    return data.predictor.predict(data.cells[rows], {}, estimate=estimate, seed=seed)


def _place(values: Sequence[np.ndarray], kind: MapKind, seed: int) -> tuple[list[np.ndarray], str, str]:
    """Return places, the name of the axes, and why they are not those of a UMAP; the first values are real cells."""
    why = "principal components were asked for"
    if kind == "umap":
        why = f"{len(values[0])} real cells are too few for a UMAP"
        if len(values[0]) >= _FEW_CELLS:
            try:
                return place_on_umap(values, seed), "UMAP", ""
            except RuntimeUnavailableError:
                why = "umap-learn is not installed"
    return place_on_components(values), "PC", why


def place_on_components(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Place several groups of cells in the plane of the first group's first two principal components.

    Parameters
    ----------
    values
        Expression of each group, log scale, [N x G]; of a single gene the second component is zero.

    Returns
    -------
    Places of each group, float32 [N x 2].

    Examples
    --------
    >>> import numpy as np
    >>> cells = np.array([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [8.0, 0.0, 1.0]])
    >>> [each.shape for each in place_on_components([cells, cells[:1]])]
    [(3, 2), (1, 2)]
    """
    centre = values[0].mean(axis=0)
    axes = np.zeros((len(centre), 2))
    found = np.linalg.svd(values[0] - centre, full_matrices=False)[2][:2].T
    axes[:, : found.shape[1]] = found
    return [((each - centre) @ axes).astype(np.float32) for each in values]


def list_shown_labels(drawn: CellMap) -> list[int]:
    """Return the codes of the labels that some cell of a map carries, ascending; `UNLABELLED` last, if any."""
    codes = np.unique(np.concatenate([drawn.sources.labels, drawn.targets.labels])).tolist()
    return [code for code in codes if code != UNLABELLED] + [UNLABELLED] * (UNLABELLED in codes)
