"""Intervals of effects: what they are made of, which cells are unseen, and where nothing was measured."""

from dataclasses import replace

import anndata
import numpy as np
import pytest

from causcell._internal.confidence import half_width
from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.counterfactual.uncertainty import UNMEASURED, EffectUncertainty
from causcell.effects import cell_effects, simulated_trial
from causcell.errors import ConfigurationError
from causcell.generator import Generator
from causcell.repository.effect_error import EffectError, ErrorSize

SCHEMA = ConceptSchema(
    (Concept("stim", ("ctrl", "IFN")), Concept("type", ("B", "NK", "T")), Concept("state", ("on", "off"))),
    (Edge("stim", "state"),),
)
SEEN = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 1], [0, 2, 0], [1, 2, 1]], dtype=np.int32)
"""No NK cell has IFN, nor any cell that is on."""
SMALL, LARGE = ErrorSize(constant=0.1, relative=0.2), ErrorSize(constant=0.4, relative=0.9)
ERROR = EffectError(
    strata=("type",), shifts=4, stratum=SMALL, shared=ErrorSize(constant=0.02, relative=0.1), unseen=LARGE
)
IFN = [(0, 1)]


@pytest.fixture
def uncertainty() -> EffectUncertainty:
    """Errors of stim alone, of two genes whose deviations are 1 and 2."""
    return EffectUncertainty(SCHEMA, np.array([1.0, 2.0]), SEEN, {"stim": ERROR})


def test_intervals_of_an_estimated_variance_hold_what_they_say() -> None:
    """A variance taken from four draws, and a known one beside it: 90 of 100 hold, within the noise of 20,000."""
    rng = np.random.default_rng(0)
    for known in (0.0, 0.5, 5.0):
        draws = rng.normal(0, 1, (20_000, 4))
        half = half_width(draws.var(axis=1, ddof=1) * 1.25, np.full(20_000, known), freedom=3)
        error = draws.mean(axis=1) - rng.normal(0, 1, 20_000) + rng.normal(0, np.sqrt(known), 20_000)
        assert (np.abs(error) <= half).mean() == pytest.approx(0.9, abs=0.015)


def test_a_pair_of_labels_that_never_met_is_unseen(uncertainty: EffectUncertainty) -> None:
    """Whatever the label of an effect of the target: it changes with it. An unknown stratum is unseen, too."""
    labels = np.array([[0, 0, 0], [0, 1, 0], [0, 2, 1], [0, -1, 0], [0, 0, -1]], dtype=np.int32)
    np.testing.assert_array_equal(uncertainty.find_unseen(IFN, labels), [False, True, False, True, False])
    joint = uncertainty.find_unseen([(0, 1), (1, 1)], labels)
    assert joint.all()


def test_the_error_of_a_cell_is_that_of_its_labels(uncertainty: EffectUncertainty) -> None:
    labels = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.int32)
    effect = np.array([[3.0, 0.0]] * 3)
    error = uncertainty.of_cells(IFN, labels, effect)
    np.testing.assert_allclose(error[0], [0.1 + 0.2 * 9, 0.1 * 4])
    np.testing.assert_allclose(error[1], [0.4 + 0.9 * 9, 0.4 * 4])
    np.testing.assert_array_equal(error[2], 0)  # carries the label already
    assert np.isnan(uncertainty.of_cells([(0, 1), (1, 2)], labels, effect)).all()  # of type nothing was measured


def test_averages_over_strata_keep_what_strata_share(uncertainty: EffectUncertainty) -> None:
    """One stratum has the whole error, two halves half of what is their own, unseen cells their larger one."""
    effects = np.array([[0.0, 0.0], [0.0, 0.0]])
    one, two, unseen = (
        uncertainty.of_averages(0, 0, np.array([[0, code, 0] for code in codes], dtype=np.int32), effects)
        for codes in ((0, 0), (0, 2), (1, 1))
    )
    np.testing.assert_array_equal(one[0], 0)
    np.testing.assert_allclose(one[1], [0.1, 0.4])
    np.testing.assert_allclose(two[1], [0.02 + 0.08 / 2, 4 * (0.02 + 0.08 / 2)])
    np.testing.assert_allclose(unseen[1], [0.4, 1.6])


def test_a_trial_and_a_summary_have_the_intervals_of_the_models_error(
    generator: Generator, cells: anndata.AnnData, quiet: None
) -> None:
    trial = simulated_trial(generator, cells, "stim", draws=2)
    lower, upper = (np.asarray(trial.layers[name], dtype=np.float64) for name in ("lower", "upper"))
    np.testing.assert_allclose((lower + upper) / 2, trial.layers["effect"], atol=1e-5)
    np.testing.assert_array_equal(upper[0] - lower[0], 0)  # the baseline against itself
    assert (upper[1] - lower[1] > 2 * 1.64 * trial.layers["standard_error"][1]).all()
    wider = simulated_trial(generator, cells, "stim", draws=2, interval=0.99)
    assert (wider.layers["upper"][1] > trial.layers["upper"][1]).all()
    assert wider.uns["causcell"]["interval"] == 0.99
    assert "not a wrong graph or missing causes" in trial.uns["causcell"]["interval_covers"]


def test_effects_of_cells_are_the_same_from_either_door(
    generator: Generator, few: anndata.AnnData, quiet: None
) -> None:
    """`cell_effects` and a summary of the mean estimate: means, and ends of the intervals."""
    effects = cell_effects(generator, few, {"stim": "IFN"}, draws=3, seed=4)
    summary = generator.counterfactual(few, [{}, {"stim": "IFN"}], store="summary", preset="mean", draws=3, seed=4)
    acted = summary[summary.obs["intervention"] != "factual"]
    np.testing.assert_allclose(acted.layers["effect"], effects.X, atol=1e-5)
    for end in ("lower", "upper"):
        np.testing.assert_allclose(acted.layers[end], effects.layers[end], atol=1e-4)
    factual = summary[summary.obs["intervention"] == "factual"]
    for name in ("effect", "lower", "upper"):
        np.testing.assert_array_equal(factual.layers[name], 0)
    assert summary.uns["causcell"]["interval"] == 0.9


def test_a_model_without_measured_errors_has_no_intervals(
    generator: Generator, few: anndata.AnnData, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that an earlier version exported: everything else is as ever, and it is told."""
    of = EffectUncertainty.of
    monkeypatch.setattr(EffectUncertainty, "of", classmethod(lambda cls, model: replace(of(model), errors={})))
    trial = simulated_trial(generator, few, "stim", draws=2)
    assert np.isnan(trial.layers["lower"][1]).all()
    assert np.isfinite(trial.layers["standard_error"]).all()
    assert trial.uns["causcell"]["interval_covers"] == UNMEASURED


@pytest.mark.parametrize("interval", [0, 1, 90, -0.5, float("nan")])
def test_what_is_no_level(generator: Generator, few: anndata.AnnData, interval: float) -> None:
    with pytest.raises(ConfigurationError, match="is no level of an interval; give a share between 0 and 1"):
        simulated_trial(generator, few, "stim", interval=interval)
    with pytest.raises(ConfigurationError, match="is no level of an interval"):
        generator.counterfactual(few, {"stim": "IFN"}, store="summary", draws=2, interval=interval)


def test_a_level_without_a_summary(generator: Generator, few: anndata.AnnData) -> None:
    with pytest.raises(ConfigurationError, match=r"interval=0.5 belongs to a summary, which alone has intervals"):
        generator.counterfactual(few, {"stim": "IFN"}, interval=0.5)
