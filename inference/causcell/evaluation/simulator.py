"""A simulator whose truth is known: for every cell, what it would have expressed under any intervention.

Labels follow structural equations, a cell's own noise given: the label of concept i is the one with the largest
``logits_i[labels of its parents] + gumbel`` (the Gumbel-max form of a categorical structural equation). Expression is

    rate = base + sum_i strength_i programme_i[label_i] + interaction[label_a, label_b] + factor loading
    counts ~ negative binomial, mean library exp(rate) / sum(exp(rate)),

with a strength of each programme, a factor and a library size of each cell, so that counts are over-dispersed and
sparse. A cell's counterfactual keeps all of its noise (Gumbel, strengths, factor, library, one uniform number a gene)
and changes what the intervention and its consequences change: abduction, action and prediction, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.preprocessing import TARGET_SUM

if TYPE_CHECKING:
    import anndata

SCHEMA = ConceptSchema(
    (
        Concept("treatment", ("control", "treated")),
        Concept("donor", ("d1", "d2", "d3")),
        Concept("cell_type", ("A", "B", "C")),
        Concept("state", ("active", "resting")),
    ),
    (Edge("treatment", "state"), Edge("donor", "cell_type"), Edge("cell_type", "state")),
)
"""Donors differ in their cell types; treatment activates cells, and some types more than others."""


OPPOSITE = (1, -1, 0)
"""Responses of a world whose effect no sum of parents holds: treatment activates A, makes B rest and leaves C alone."""

_INTERACTION = ("treatment", "cell_type")
_FACTORS = 2
_NEGLECTED = 1e-6
"""Probability of the counts that `expect_expression` leaves out."""


@dataclass(frozen=True)
class Noise:
    """Exogenous variables of the truth: all that is a cell's own, [n x ...].

    Attributes
    ----------
    gumbel
        Noise of each label of each concept, an array [n x labels] a concept.
    strength
        Strength of each concept's programme, [n x m], mean 1.
    factor
        Factors of variation that no concept explains, [n x 2].
    library
        Expected total of counts, [n].
    uniforms
        Quantiles of the counts, [n x G].
    """

    gumbel: tuple[np.ndarray, ...]
    strength: np.ndarray
    factor: np.ndarray
    library: np.ndarray
    uniforms: np.ndarray


@dataclass(frozen=True)
class World:
    """Parameters of the truth.

    Attributes
    ----------
    logits
        Log-odds of each concept's labels, an array [parents' labels ... x labels] a concept.
    base
        Log rate of every gene, [G].
    programmes
        Log fold changes of each concept's labels, an array [labels x G] a concept.
    interaction
        Log fold changes of treatment and cell type together, [2 x 3 x G].
    loading
        Log fold changes by the factors, [2 x G].
    dispersion
        Dispersion of the negative binomial: variance = mean + dispersion mean^2.
    """

    logits: tuple[np.ndarray, ...]
    base: np.ndarray
    programmes: tuple[np.ndarray, ...]
    interaction: np.ndarray
    loading: np.ndarray
    dispersion: float = 0.3

    @classmethod
    def make(
        cls, genes: int = 80, *, activation: float = 3.0, responses: Sequence[float] = (1, 1, 0), seed: int = 0
    ) -> World:
        """Make a world at random.

        Parameters
        ----------
        genes
            Number of genes.
        activation
            Effect of treatment on the log-odds of the active state.
        responses
            Share of it in each cell type: by default A and B respond and C does not. Below zero treatment makes cells
            rest that were active without it; see `OPPOSITE`.
        seed
            Seed of all parameters.

        Examples
        --------
        >>> world = World.make(genes=12)
        >>> world.cells(world.noise(20)).shape
        (20, 12)
        """
        rng = np.random.default_rng((seed, 0))
        state = np.zeros((2, 3, 2))  # treatment x cell type x (active, resting)
        response = activation * np.asarray(responses)
        state[0, :, 1] = 1.5 + np.minimum(response, 0)  # active before, where treatment makes cells rest
        state[1, :, 1] = state[0, :, 1] - response
        donor = np.log([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
        programmes = []
        for concept in SCHEMA.concepts:
            programme = rng.normal(0, 1, (len(concept.labels), genes)) * (rng.random(genes) < 0.25)
            programmes.append(programme - programme.mean(axis=0))
        interaction = rng.normal(0, 0.7, (2, 3, genes)) * (rng.random(genes) < 0.1)
        interaction[0] = 0
        return cls(
            (np.zeros(2), np.zeros(3), donor, state),
            rng.normal(0, 1.5, genes),
            tuple(programmes),
            interaction,
            rng.normal(0, 0.5, (_FACTORS, genes)) * (rng.random(genes) < 0.3),
        )

    def noise(self, cells: int, *, seed: int = 0, library: float = 200.0) -> Noise:
        """Draw the noise of new cells; ``library`` is the median of their expected totals of counts."""
        rng = np.random.default_rng((seed, 1))
        return Noise(
            tuple(rng.gumbel(size=(cells, len(concept.labels))) for concept in SCHEMA.concepts),
            rng.gamma(10, 0.1, (cells, len(SCHEMA.concepts))),
            rng.normal(size=(cells, _FACTORS)),
            library * rng.lognormal(0, 0.3, cells),
            rng.random((cells, len(self.base))),
        )

    def labels(self, noise: Noise, do: Mapping[str, str] | None = None) -> np.ndarray:
        """Compute label codes under an intervention (none: as observed), int32 [n x m]."""
        forced = {SCHEMA.index(name): SCHEMA[name].code(label) for name, label in (do or {}).items()}
        codes = np.empty((len(noise.library), len(SCHEMA.concepts)), dtype=np.int32)
        for i in SCHEMA.order:
            if i in forced:
                codes[:, i] = forced[i]
                continue
            parents = tuple(codes[:, parent] for parent in SCHEMA.parents(i))
            codes[:, i] = (self.logits[i][parents] + noise.gumbel[i]).argmax(axis=1)
        return codes

    def _mean(self, codes: np.ndarray, noise: Noise) -> np.ndarray:
        """Compute expected counts of cells with these label codes [n x m], float64 [n x G]."""
        a, b = (SCHEMA.index(name) for name in _INTERACTION)
        rate = self.base + self.interaction[codes[:, a], codes[:, b]] + noise.factor @ self.loading
        for i, programme in enumerate(self.programmes):
            rate = rate + noise.strength[:, i, None] * programme[codes[:, i]]
        share = np.exp(rate)
        return np.asarray(noise.library[:, None] * share / share.sum(axis=1, keepdims=True))

    def cells(self, noise: Noise, do: Mapping[str, str] | None = None) -> anndata.AnnData:
        """Simulate raw counts (CSR int32 [n x G]) and labels of the cells under an intervention (none: as observed).

        The same noise gives the same cells: rows of two interventions are counterfactuals of each other.
        """
        codes = self.labels(noise, do)
        obs = {name: SCHEMA.label_names(codes[:, i], name) for i, name in enumerate(SCHEMA.names)}
        counts = draw_counts(self._mean(codes, noise), noise.uniforms, self.dispersion, int(self.base.argmax()))
        return make_cells(counts, obs)

    def expected(self, noise: Noise, do: Mapping[str, str] | None = None) -> np.ndarray:
        """Compute expression (log1p of counts per 10,000) expected over the noise of counts, float64 [n x G].

        It is the sum over all counts of their probability (up to one in a million), totals taken at their expectation.
        """
        return expect_expression(self._mean(self.labels(noise, do), noise), noise.library, self.dispersion)

    def effect(self, noise: Noise, do: Mapping[str, str]) -> np.ndarray:
        """Compute the true effect on each cell's expected expression, float64 [n x G]."""
        return np.asarray(self.expected(noise, do) - self.expected(noise))


def draw_counts(mean: np.ndarray, uniforms: np.ndarray, dispersion: float, gene: int) -> np.ndarray:
    """Draw negative binomial counts, int32 [n x G], at quantiles [n x G]; no cell is empty: ``gene`` has a count then.

    The variance of counts is mean + dispersion mean^2.
    """
    from scipy.stats import nbinom

    size = 1 / dispersion
    counts = nbinom.ppf(uniforms, size, size / (size + mean)).astype(np.int32)
    counts[counts.sum(axis=1) == 0, gene] = 1
    return np.asarray(counts)


def make_cells(counts: np.ndarray, obs: Mapping[str, object]) -> anndata.AnnData:
    """Make an AnnData of simulated counts (CSR [n x G]) with columns of ``obs`` and names of cells and genes."""
    import anndata
    import pandas as pd

    return anndata.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(dict(obs), index=[f"cell_{i:05d}" for i in range(len(counts))]),
        var=pd.DataFrame(index=[f"gene_{i:04d}" for i in range(counts.shape[1])]),
    )


def expect_expression(mean: np.ndarray, library: np.ndarray, dispersion: float) -> np.ndarray:
    """Compute expression (log1p of counts per 10,000) expected over negative binomial counts, float64 [n x G].

    Parameters
    ----------
    mean
        Expected counts, [n x G].
    library
        Expected total of each cell, [n].
    dispersion
        Variance of counts is mean + dispersion mean^2.
    """
    size = 1 / dispersion
    probability = (size / (size + mean)) ** size  # of no count at all
    left, expected, count = 1 - probability, np.zeros_like(mean), 0
    while left.max() > _NEGLECTED:
        probability = probability * (count + size) / (count + 1) * mean / (size + mean)
        count += 1
        expected += probability * np.log1p(TARGET_SUM * count / library)[:, None]
        left = left - probability
    return expected


def effect_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """Squared error of predicted single-cell effects [n x G] over the squared size of the true ones: 1 is no change."""
    return float(((predicted - true) ** 2).sum() / (true**2).sum())
