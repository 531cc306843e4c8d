"""Trivial baselines, which learn nothing that one could not look up: means, shifts, a ridge, principal components.

Labels are those of all concepts but where a baseline says otherwise; a combination of labels that no training cell
carries falls back on what its labels add up to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_COMPONENTS = 128
_PENALTY = 1.0


class Trivial:
    """What trivial baselines share: the training cells, and their labels as numbers.

    Parameters
    ----------
    job
        See ``adapter.Job``.
    """

    name = "trivial"
    version = "this project"
    licence = "BSD-3-Clause"
    notes: tuple[str, ...] = ()
    lines = 5

    def __init__(self, job: Any) -> None:
        self.job = job
        self.acted = next(iter(job.interventions[0]["do"]))
        self.strata = job.strata if job.strata != self.acted else None

    def fit(self, cells: Any) -> None:
        """Keep the cells that are no validation cells."""
        cells = cells[~cells.obs["validation"].to_numpy()]
        self.expression = np.asarray(cells.layers["log1p"].todense(), dtype=np.float32)
        self.labels = cells.obs[self.job.concepts].astype(str).reset_index(drop=True)

    def size_on_disk(self) -> int:
        """Return the bytes of the means that are needed."""
        return 4 * self.expression.shape[1] * len(self.labels.drop_duplicates())

    def values(self, cells: Any) -> np.ndarray:
        """Return the cells' own log values, float32 [n x G]."""
        return np.asarray(cells.layers["log1p"].todense(), dtype=np.float32)

    def told(self, cells: Any, do: dict[str, str] | None = None) -> Any:
        """Return the labels of cells under an intervention."""
        labels = cells.obs[self.job.concepts].astype(str).reset_index(drop=True)
        return labels.assign(**(do or {}))

    def carriers(self, codes: dict[str, str]) -> np.ndarray:
        """Find the training cells that carry these labels, bool [n]."""
        found = np.ones(len(self.labels), dtype=bool)
        for concept, label in codes.items():
            found &= (self.labels[concept] == label).to_numpy()
        return found

    def mean_of(self, codes: dict[str, str]) -> np.ndarray | None:
        """Average the training cells that carry these labels; `None` for fewer than four."""
        found = self.carriers(codes)
        return self.expression[found].mean(axis=0) if found.sum() >= 4 else None


class NoChange(Trivial):
    """Every cell stays as it is."""

    name = "no change"
    notes = ("the source cell itself; no estimate of the cell",)
    lines = 1

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Return the cells as they are."""
        return self.values(cells)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Return the cells as they are."""
        return np.repeat(self.values(cells)[None], draws, axis=0)


class Shift(Trivial):
    """Source cells moved by the mean difference of the training cells: ``self.within`` says of which stratum."""

    within = False
    notes = ("no estimate of the cell: the shift is added to its own values, clipped at zero where samples are asked",)

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Return the cells' values moved by the shift."""
        moved = self.values(cells)
        labels = self.told(cells)
        for row in range(len(moved)):
            moved[row] += self.shift(do, labels.iloc[row])
        return moved

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Return the cells' values moved by the shift and clipped at zero."""
        return np.repeat(np.maximum(self.counterfactual_mean(cells, do), 0)[None], draws, axis=0)

    def shift(self, do: dict[str, str], labels: Any) -> np.ndarray:
        """Return the shift of a cell with these labels, [G]; several concepts' shifts add up."""
        return sum(self._shift(concept, label, labels) for concept, label in do.items())

    def _shift(self, concept: str, label: str, labels: Any) -> np.ndarray:
        source = labels[concept]
        within = self.within and self.strata and self.strata != concept
        key = (concept, label, source, labels[self.strata] if within else "")
        if not hasattr(self, "_known"):
            self._known: dict[Any, np.ndarray] = {}
        if key not in self._known:
            self._known[key] = self._measure(concept, label, source, key[-1])
        return self._known[key]

    def _measure(self, concept: str, label: str, source: str, stratum: str) -> np.ndarray:
        groups = [stratum] if stratum else []
        for here in groups:
            shift = self._difference(concept, label, source, {self.strata: here})
            if shift is not None:
                return shift
        if groups:  # not seen in this stratum: the mean of the others'
            others = [
                self._difference(concept, label, source, {self.strata: each})
                for each in self.labels[self.strata].unique()
            ]
            found = [each for each in others if each is not None]
            if found:
                return np.mean(found, axis=0)
        shift = self._difference(concept, label, source, {})
        return np.zeros(self.expression.shape[1], dtype=np.float32) if shift is None else shift

    def _difference(self, concept: str, label: str, source: str, within: dict[Any, str]) -> np.ndarray | None:
        means = [self.mean_of({concept: each, **within}) for each in (source, label)]
        return None if means[0] is None or means[1] is None else means[1] - means[0]


class GlobalShift(Shift):
    """One shift for all."""

    name = "one shift for all"
    lines = 6


class TypeShift(Shift):
    """A shift for each stratum; for one where it was not seen, the mean of the others'."""

    name = "shift within type"
    within = True
    lines = 8


class Means(Trivial):
    """Estimates from labels alone: what `expect` says of each distinct combination of labels."""

    notes = ("reads labels at test time, and nothing of the cell",)

    def expect(self, labels: Any) -> np.ndarray:
        """Estimate cells of these labels, [n x G]."""
        raise NotImplementedError

    def _estimate(self, labels: Any) -> np.ndarray:
        distinct = labels.drop_duplicates().reset_index(drop=True)
        places = labels.merge(distinct.reset_index(), how="left", on=list(labels.columns))["index"].to_numpy()
        return np.maximum(self.expect(distinct), 0)[places].astype(np.float32)

    def mean(self, cells: Any) -> np.ndarray:
        """Estimate the cells from their labels."""
        return self._estimate(self.told(cells))

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Estimate cells of the labels that are set."""
        return self._estimate(self.told(cells, do))


class LabelMeans(Means):
    """The mean of the training cells of the same stratum and label, and one of them at random as a sample."""

    name = "label means"
    lines = 4

    def _codes(self, row: Any) -> list[dict[str, str]]:
        """List the groups to look up, the finest first."""
        kept = [self.acted, *([self.strata] if self.strata else [])]
        if self.strata is None:
            kept = list(self.job.concepts)
        finest = {concept: row[concept] for concept in kept}
        return [finest, *({concept: label} for concept, label in list(finest.items())[::-1]), {}]

    def expect(self, labels: Any) -> np.ndarray:
        """Average the training cells of the finest group that there is."""
        found = []
        for _, row in labels.iterrows():
            means = (self.mean_of(codes) for codes in self._codes(row))
            found.append(next(each for each in means if each is not None))
        return np.array(found)

    def _draw(self, labels: Any, draws: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        made = np.empty((draws, len(labels), self.expression.shape[1]), dtype=np.float32)
        for place, (_, row) in enumerate(labels.iterrows()):
            groups = (np.flatnonzero(self.carriers(codes)) for codes in self._codes(row))
            rows = next(each for each in groups if len(each) >= 4)
            made[:, place] = self.expression[rng.choice(rows, draws)]
        return made

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw a training cell of the same labels."""
        return self._draw(self.told(cells), draws, seed)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw a training cell of the labels that are set."""
        return self._draw(self.told(cells, do), draws, seed)


class Ridge(Means):
    """A ridge regression of log values on labels: one number a label, nothing between them."""

    name = "additive ridge"
    interactions = False
    lines = 10

    def fit(self, cells: Any) -> None:
        """Solve the normal equations."""
        super().fit(cells)
        self.known = {concept: sorted(self.labels[concept].unique()) for concept in self.job.concepts}
        design, self.centre = self._design(self.labels), self.expression.mean(axis=0)
        square = design.T @ design + _PENALTY * np.eye(design.shape[1])
        self.weights = np.linalg.solve(square, design.T @ (self.expression - self.centre))

    def size_on_disk(self) -> int:
        """Return the bytes of the weights."""
        return int(self.weights.size * 4)

    def _design(self, labels: Any) -> np.ndarray:
        hot = {c: (labels[c].to_numpy()[:, None] == np.array(each)).astype(float) for c, each in self.known.items()}
        columns = list(hot.values())
        if self.interactions:
            names = [concept for concept in self.known if concept != self.acted]
            columns += [
                (hot[self.acted][:, :, None] * hot[name][:, None, :]).reshape(len(labels), -1) for name in names
            ]
        return np.concatenate(columns, axis=1)

    def expect(self, labels: Any) -> np.ndarray:
        """Predict from labels."""
        return self.centre + self._design(labels) @ self.weights


class InteractionRidge(Ridge):
    """The same with a number for each pair of a label that is set and any other."""

    name = "interaction ridge"
    interactions = True
    lines = 12


class ComponentsShift(TypeShift):
    """A cell's projection on 128 principal components, and the shift within its type."""

    name = "PCA-128 with shift within type"
    notes = ("reads the cell itself, which no embedding of few numbers does: a projection, no model of cells",)
    lines = 12

    def fit(self, cells: Any) -> None:
        """Take the components by a singular value decomposition."""
        super().fit(cells)
        self.centre = self.expression.mean(axis=0)
        self.components = np.linalg.svd(self.expression - self.centre, full_matrices=False)[2][:_COMPONENTS]

    def size_on_disk(self) -> int:
        """Return the bytes of the components."""
        return int(self.components.size * 4)

    def _project(self, cells: Any) -> np.ndarray:
        return self.centre + (self.values(cells) - self.centre) @ self.components.T @ self.components

    def mean(self, cells: Any) -> np.ndarray:
        """Project the cells."""
        return np.maximum(self._project(cells), 0)

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Project the cells, and move them."""
        moved, labels = self._project(cells), self.told(cells)
        return np.maximum(moved + np.array([self.shift(do, labels.iloc[row]) for row in range(len(moved))]), 0)

    counterfactual_sample = None
