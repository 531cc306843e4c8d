"""Trivial predictions of a mean shift: what the cells that baselines learn from tell without any model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causcell.concepts import UNLABELLED
from causcell.evaluation.cases import Case, find_carriers
from causcell.evaluation.scores import Role

NO_CHANGE = "no change"
MEAN_RESPONSE = "mean response, of every other label"
ONE_FOR_ALL = "shift of the cells learned from, one for all"
ADDITIVE = "additive: mean shift of the other strata"
PER_STRATUM = "shift of the cells learned from, per stratum (where seen)"

_MIN_CELLS = 4


class TrivialShifts:
    """Mean shifts between groups of the cells that baselines learn from.

    Parameters
    ----------
    expression
        Their expression, log scale, [r x G].
    labels
        Their label codes, int [r x m]; -1 is unlabelled.
    """

    def __init__(self, expression: np.ndarray, labels: np.ndarray) -> None:
        self._expression, self._labels = expression, labels
        self._means: dict[tuple[tuple[int, int], ...], tuple[int, np.ndarray]] = {}

    def predict(self, case: Case) -> dict[str, np.ndarray]:
        """Predict the shift of a case in every trivial way that these cells allow.

        Parameters
        ----------
        case
            What is shifted, and where.

        Returns
        -------
        Shifts by name, float64 [G]:

        - ``no change``;
        - the mean response: that of all cells with any other label than the source, where there are several;
        - one shift for all: target less source cells, whatever else they are;
        - additive: the mean of the shifts within every other stratum, for cells of this one;
        - the shift within the stratum itself, where it was seen. It is no guess but a measurement: a replicate.
        """
        shifts: dict[str, np.ndarray | None] = {NO_CHANGE: np.zeros(self._expression.shape[1])}
        shifts[MEAN_RESPONSE] = self._mean_response(case)
        shifts[ONE_FOR_ALL] = self._shift(case, {})
        shifts[ADDITIVE] = self._additive(case)
        shifts[PER_STRATUM] = self._shift(case, dict(case.stratum))
        return {name: shift for name, shift in shifts.items() if shift is not None}

    def _mean(self, codes: Mapping[int, int]) -> tuple[int, np.ndarray]:
        """Count the cells that carry these labels, and average them, float64 [G]."""
        key = tuple(sorted(codes.items()))
        if key not in self._means:
            rows = np.flatnonzero(find_carriers(self._labels, codes))
            mean = self._expression[rows].mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(0)
            self._means[key] = len(rows), mean
        return self._means[key]

    def _shift(self, case: Case, stratum: Mapping[int, int], min_cells: int = 1) -> np.ndarray | None:
        """Return the mean of target less that of source cells within a stratum; `None` where too few were seen."""
        groups = [self._mean({**stratum, case.concept: code}) for code in (case.source, case.target)]
        if min(count for count, _ in groups) < min_cells:
            return None
        return np.asarray(groups[1][1] - groups[0][1])

    def _mean_response(self, case: Case) -> np.ndarray | None:
        codes = self._labels[:, case.concept]
        others = [int(code) for code in np.unique(codes) if code not in (UNLABELLED, case.source)]
        count, source = self._mean({case.concept: case.source})
        if len(others) < 2 or not count:
            return None
        found = [self._mean({case.concept: code}) for code in others]
        return np.asarray(np.average([mean for _, mean in found], axis=0, weights=[n for n, _ in found]) - source)

    def _additive(self, case: Case) -> np.ndarray | None:
        """Average the shift over every other stratum of at least four source and target cells each."""
        if not case.stratum:
            return None
        concepts = [concept for concept, _ in case.stratum]
        own = tuple(code for _, code in case.stratum)
        strata = np.unique(self._labels[:, concepts], axis=0)
        shifts = [
            self._shift(case, dict(zip(concepts, codes, strict=True)), _MIN_CELLS)
            for codes in map(tuple, strata.tolist())
            if codes != own and UNLABELLED not in codes
        ]
        found = [shift for shift in shifts if shift is not None]
        return np.mean(found, axis=0) if found else None


def trivial_roles(case: Case) -> dict[str, Role]:
    """Return the part of each trivial shift: a replicate where it was measured on the same groups of cells."""
    roles: dict[str, Role] = dict.fromkeys((NO_CHANGE, MEAN_RESPONSE, ONE_FOR_ALL, ADDITIVE), "trivial")
    roles[PER_STRATUM] = "replicate"
    if not case.stratum:  # over all cells, one shift for all is the same measurement
        roles[ONE_FOR_ALL] = "replicate"
    return roles
