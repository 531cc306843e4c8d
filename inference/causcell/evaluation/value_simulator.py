"""A simulator of concepts as they are: a dose, hours, several perturbations at once; its counterfactuals are known.

Beside labels (donor, cell type, state) cells carry a continuous dose, hours of a few values, and a set of perturbations
("control", "P1", "P1+P3"). Effects are no lines: a dose saturates gene by gene, rates pass a peak in time, two
perturbations together do what neither does, and the state turns active above a threshold of the dose, in some types of
cells alone. Noise is kept under interventions as in `causcell.evaluation.simulator`, whose law of counts this is, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from causcell.errors import InterventionError, format_list
from causcell.evaluation.simulator import draw_counts, expect_expression, make_cells

if TYPE_CHECKING:
    import anndata

Value = str | float
"""Value of a concept: a label, a set as "P1+P2", or a number."""

KINDS = {
    "donor": "labels",
    "cell_type": "labels",
    "dose": "continuous",
    "hours": "ordinal",
    "perturbation": "set",
    "state": "labels",
}
"""Kind of each concept, by name of its column, causes before effects."""

EDGES = (("donor", "cell_type"), ("cell_type", "state"), ("dose", "state"))
"""True edges between concepts, cause and effect."""

DONORS, CELL_TYPES, STATES = ("d1", "d2", "d3"), ("A", "B", "C"), ("active", "resting")
HOURS = (0.0, 6.0, 24.0, 48.0)
CONTROL, MEMBERS = "control", ("P1", "P2", "P3")
LARGEST_DOSE = 10.0
THRESHOLD = 5.0
"""Dose above which cells of a type that responds turn active."""

_RESPONDS = np.array([True, True, False])
_STEEPNESS = 3.0
_FACTORS = 2
_UNDOSED = 0.2
"""Share of cells with dose 0."""


@dataclass(frozen=True)
class ValueNoise:
    """Exogenous variables of the truth: all that is a cell's own, [n x ...].

    Attributes
    ----------
    assigned
        Values that no other concept causes, float64 [n x 3]: code of the donor, dose, code of the hours.
    members
        Which members of the set of perturbations the cell carries, bool [n x 3].
    gumbel
        Noise of each cell type and of each state, [n x 3] and [n x 2].
    strength
        Strength of each concept's programme, [n x 6], mean 1.
    factor
        Factors of variation that no concept explains, [n x 2].
    library
        Expected total of counts, [n].
    uniforms
        Quantiles of the counts, [n x G].
    """

    assigned: np.ndarray
    members: np.ndarray
    gumbel: tuple[np.ndarray, np.ndarray]
    strength: np.ndarray
    factor: np.ndarray
    library: np.ndarray
    uniforms: np.ndarray


@dataclass(frozen=True)
class ValueWorld:
    """Parameters of the truth.

    Attributes
    ----------
    base
        Log rate of every gene, [G].
    labels
        Log fold changes of the labels of donor, cell type and state, an array [labels x G] each, by name.
    saturation
        Log fold change of a large dose, and the dose of half of it, of every gene: [2 x G].
    course
        Log fold change at the peak, and the hour of the peak, of every gene: [2 x G].
    members
        Log fold changes of each member of the set alone, [3 x G].
    pairs
        What two members add together, by pair of members, [G] each.
    loading
        Log fold changes by the factors, [2 x G].
    dispersion
        Dispersion of the negative binomial: variance = mean + dispersion mean^2.
    """

    base: np.ndarray
    labels: Mapping[str, np.ndarray]
    saturation: np.ndarray
    course: np.ndarray
    members: np.ndarray
    pairs: Mapping[tuple[str, str], np.ndarray]
    loading: np.ndarray
    dispersion: float = 0.3

    @classmethod
    def make(cls, genes: int = 80, *, seed: int = 0) -> ValueWorld:
        """Make a world at random.

        Examples
        --------
        >>> world = ValueWorld.make(genes=12)
        >>> cells = world.cells(world.noise(20), {"dose": 2.5, "perturbation": "P1+P3"})
        >>> cells.obs["dose"].unique().tolist(), cells.obs["perturbation"].unique().tolist()
        ([2.5], ['P1+P3'])
        """
        rng = np.random.default_rng((seed, 10))

        def programme(count: int, size: float = 1.0, share: float = 0.25) -> np.ndarray:
            return np.asarray(rng.normal(0, size, (count, genes)) * (rng.random(genes) < share))

        labels = {
            name: (found := programme(len(values))) - found.mean(axis=0)
            for name, values in (("donor", DONORS), ("cell_type", CELL_TYPES), ("state", STATES))
        }
        return cls(
            rng.normal(0, 1.5, genes),
            labels,
            np.stack([programme(1, 1.5)[0], rng.uniform(0.5, 8, genes)]),
            np.stack([programme(1, 1.5)[0], rng.uniform(3, 40, genes)]),
            programme(len(MEMBERS), 1.2),
            {pair: programme(1, 1.0, 0.15)[0] for pair in combinations(MEMBERS, 2)},
            programme(_FACTORS, 0.5, 0.3),
        )

    def noise(self, cells: int, *, seed: int = 0, library: float = 200.0) -> ValueNoise:
        """Draw the noise of new cells; ``library`` is the median of their expected totals of counts.

        Doses are 0 in a fifth of the cells and else uniform up to 10; two fifths carry no perturbation, two fifths one
        and a fifth two.
        """
        rng = np.random.default_rng((seed, 11))
        dose = np.where(rng.random(cells) < _UNDOSED, 0, np.round(rng.uniform(0, LARGEST_DOSE, cells), 2))
        assigned = [rng.integers(len(DONORS), size=cells), dose, rng.integers(len(HOURS), size=cells)]
        count = rng.choice(3, cells, p=[0.4, 0.4, 0.2])
        rank = rng.random((cells, len(MEMBERS))).argsort(axis=1).argsort(axis=1)
        return ValueNoise(
            np.stack(assigned, axis=1).astype(np.float64),
            rank < count[:, None],
            (rng.gumbel(size=(cells, len(CELL_TYPES))), rng.gumbel(size=(cells, len(STATES)))),
            rng.gamma(10, 0.1, (cells, len(KINDS))),
            rng.normal(size=(cells, _FACTORS)),
            library * rng.lognormal(0, 0.3, cells),
            rng.random((cells, len(self.base))),
        )

    def values(self, noise: ValueNoise, do: Mapping[str, Value] | None = None) -> dict[str, np.ndarray]:
        """Compute every concept's value under an intervention (none: as observed), by name, [n] each.

        Labels and sets are strings, doses and hours float64.

        Raises
        ------
        InterventionError
            A concept or a value that this world does not have.
        """
        set_to = {name: parse_value(name, value) for name, value in (do or {}).items()}
        cells = len(noise.library)

        def value(name: str, own: np.ndarray) -> np.ndarray:
            return (
                np.full(cells, set_to[name], dtype=own.dtype if own.dtype.kind == "f" else object)
                if name in set_to
                else own
            )

        donor = value("donor", np.array(DONORS, dtype=object)[noise.assigned[:, 0].astype(int)])
        code = np.array([DONORS.index(name) for name in donor])
        share = np.log([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
        types = np.array(CELL_TYPES, dtype=object)[(share[code] + noise.gumbel[0]).argmax(axis=1)]
        types = value("cell_type", types)
        dose = value("dose", noise.assigned[:, 1])
        responds = _RESPONDS[[CELL_TYPES.index(name) for name in types]]
        log_odds = np.where(responds, _STEEPNESS * np.tanh(4 * (dose / THRESHOLD - 1)), -1.5)
        state = (np.stack([log_odds, np.zeros(cells)], axis=1) + noise.gumbel[1]).argmax(axis=1)
        members = np.array(["+".join(np.array(MEMBERS)[row]) or CONTROL for row in noise.members], dtype=object)
        return {
            "donor": donor,
            "cell_type": types,
            "dose": dose,
            "hours": value("hours", np.array(HOURS)[noise.assigned[:, 2].astype(int)]),
            "perturbation": value("perturbation", members),
            "state": value("state", np.array(STATES, dtype=object)[state]),
        }

    def _mean(self, values: Mapping[str, np.ndarray], noise: ValueNoise) -> np.ndarray:
        """Compute expected counts of cells with these values, float64 [n x G]."""
        strength = dict(zip(KINDS, noise.strength.T, strict=True))
        rate = self.base + noise.factor @ self.loading
        for name, labels in (("donor", DONORS), ("cell_type", CELL_TYPES), ("state", STATES)):
            codes = [labels.index(label) for label in values[name]]
            rate = rate + strength[name][:, None] * self.labels[name][codes]
        dose, hours = values["dose"][:, None], values["hours"][:, None]
        rate = rate + strength["dose"][:, None] * self.saturation[0] * dose**2 / (dose**2 + self.saturation[1] ** 2)
        rate = rate + strength["hours"][:, None] * self.course[0] * hours / self.course[1] * np.exp(
            1 - hours / self.course[1]
        )
        carried = np.array([[member in text.split("+") for member in MEMBERS] for text in values["perturbation"]])
        together = carried @ self.members
        for (a, b), added in self.pairs.items():
            both = carried[:, MEMBERS.index(a)] & carried[:, MEMBERS.index(b)]
            together = together + both[:, None] * added
        rate = rate + strength["perturbation"][:, None] * together
        share = np.exp(rate)
        return np.asarray(noise.library[:, None] * share / share.sum(axis=1, keepdims=True))

    def cells(self, noise: ValueNoise, do: Mapping[str, Value] | None = None) -> anndata.AnnData:
        """Simulate raw counts (CSR int32 [n x G]) of the cells under an intervention (none: as observed).

        Columns of ``obs`` are the concepts' values: text, or float64 for dose and hours. The same noise gives the same
        cells: rows of two interventions are counterfactuals of each other.
        """
        values = self.values(noise, do)
        mean = self._mean(values, noise)
        return make_cells(draw_counts(mean, noise.uniforms, self.dispersion, int(self.base.argmax())), values)

    def expected(self, noise: ValueNoise, do: Mapping[str, Value] | None = None) -> np.ndarray:
        """Compute expression (log1p of counts per 10,000) expected over the noise of counts, float64 [n x G]."""
        return expect_expression(self._mean(self.values(noise, do), noise), noise.library, self.dispersion)

    def effect(self, noise: ValueNoise, do: Mapping[str, Value]) -> np.ndarray:
        """Compute the true effect on each cell's expected expression, float64 [n x G]."""
        return np.asarray(self.expected(noise, do) - self.expected(noise))

    def response(self, noise: ValueNoise, concept: str, values: Sequence[Value]) -> np.ndarray:
        """Compute each cell's true course over values of one concept, float64 [values x n x G]: expected expression.

        Examples
        --------
        >>> world = ValueWorld.make(genes=12)
        >>> world.response(world.noise(5), "dose", [0, 2.5, 5]).shape
        (3, 5, 12)
        """
        return np.stack([self.expected(noise, {concept: value}) for value in values])


def parse_value(concept: str, value: Value) -> Value:
    """Check a value of a concept, members of a set in their order.

    Raises
    ------
    InterventionError
        There is no such concept, or it has no such value: a label that is none, a dose below 0, hours below 0, or a
        member that is none.
    """
    if concept not in KINDS:
        raise InterventionError(f"do={concept!r} is no concept of the simulator; it has {format_list(KINDS)}")
    if concept in ("dose", "hours"):
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < np.inf:
            raise InterventionError(f"{concept}={value!r}: give a number of 0 or more")
        return number
    if concept == "perturbation":
        members = () if value == CONTROL else tuple(str(value).split("+"))
        if strange := [member for member in members if member not in MEMBERS]:
            raise InterventionError(
                f"perturbation={value!r} has {strange[0]!r}; give {CONTROL!r}, or of {format_list(MEMBERS)} joined by +"
            )
        return "+".join(sorted(set(members))) or CONTROL
    labels = {"donor": DONORS, "cell_type": CELL_TYPES, "state": STATES}[concept]
    if value not in labels:
        raise InterventionError(f"{concept}={value!r} is no label; labels are {format_list(labels)}")
    return value
