"""What is generated: made in one place, by keyword, and refused before anything is opened where it makes no sense."""

import pytest

from causcell.counterfactual.interventions import Intervention, plan_interventions
from causcell.counterfactual.request import Request, make_request, solver_settings
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConfigurationError, UnknownConceptError

FACTUAL = (Intervention((), "factual"),)
MEAN = SolverSettings("mean")


@pytest.fixture(scope="module")
def manifest(generator):
    return generator.manifest


def test_a_request_is_made_by_keyword():
    """Nine values in a row would be nobody's to read."""
    with pytest.raises(TypeError, match="positional"):
        Request(FACTUAL, MEAN)
    assert Request(interventions=FACTUAL, settings=MEAN).draws == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "see"}, "mode 'see' is not known; known are 'do', 'exogenous', 'isolated'"),
        ({"store": "means"}, "store 'means' is not known; known are 'expression', 'counts'"),
        ({"dtype": "float64"}, "dtype 'float64' is not known; .*known are 'float32', 'float16'"),
        ({"draws": 0}, "draws=0: take at least 1"),
        ({"draws": 2**31}, "draws=2147483648: take at most"),
        ({"draws": True}, "draws=True: take a whole number"),
        ({"draws": 1.5}, "draws=1.5: take a whole number"),
        ({"seed": -1}, "seed=-1: take at least 0"),
        ({"seed": 2**64}, "seed=18446744073709551616: take at most"),
        ({"seed": True}, "seed=True: take a whole number"),
        ({"seed": 2**120}, "seed=a number of 121 bits: take at most"),
        ({"store": "summary"}, "draws is 1; a summary over draws .* takes at least 2"),
        ({"store": "effects"}, "effects .* are those of interventions; name one"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(manifest, options, message):
    """By both ways to make one."""
    with pytest.raises(ConfigurationError, match=message):
        Request(interventions=FACTUAL, settings=MEAN, **options)
    with pytest.raises(ConfigurationError, match=message):
        make_request(manifest, **options)


def test_a_request_is_made_of_names_and_labels(manifest):
    made = make_request(manifest, {"stim": "IFN"}, ["cell_type"], draws=2, seed=4, match_parents=True, mode="isolated")
    assert made.interventions == plan_interventions(manifest.concept_schema, {"stim": "IFN"}, ["cell_type"])
    assert (made.draws, made.seed, made.match_parents, made.mode) == (2, 4, True, "isolated")
    assert made.settings == manifest.preset(None).solver
    with pytest.raises(UnknownConceptError, match="no concept 'dose'"):
        make_request(manifest, {"dose": "3"})


@pytest.mark.parametrize(
    ("store", "rows"), [("expression", 12), ("counts", 12), ("embeddings", 12), ("effects", 12), ("summary", 3)]
)
def test_rows_of_a_cell(manifest, store, rows):
    """A row an intervention and draw; a summary has one for all draws."""
    request = make_request(manifest, grid=["cell_type"], draws=4, store=store)
    assert request.rows_per_cell == rows
    assert request.kept_draws * 3 == rows


def test_a_preset_is_the_default_unless_a_solver_is_named(manifest):
    assert solver_settings(manifest) == manifest.preset(manifest.default_preset).solver
    assert solver_settings(manifest, preset="mean") == MEAN
    assert solver_settings(manifest, solver="ddim", steps=7, eta=0.5) == SolverSettings("ddim", 7, eta=0.5)


def test_parents_are_matched_among_cells_that_are_drawn_alone():
    with pytest.raises(ConfigurationError, match="match_parents=True chooses among reference cells, and target='own'"):
        Request(interventions=(), settings=SolverSettings("mean"), match_parents=True, target="own")
