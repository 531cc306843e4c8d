"""Registered solvers: each keeps the contract, one from outside generates cells, and no name is taken twice."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from plugins import install_plugin
from solver_from_outside import HEUN, heun

from causcell.diffusion.contract import check_solver, gaussian_moments
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import (
    Solver,
    SolverSettings,
    SolverSpec,
    ddim,
    ddpm,
    known_solvers,
    mean,
    register_solver,
    solver_spec,
    solver_table,
)
from causcell.errors import CausCellWarning, ConfigurationError
from causcell.generator import Generator

SCHEDULE = NoiseSchedule()

BUILTIN = ("draw", "ddim", "dpmpp", "ddpm", "mean")


@pytest.fixture
def registered() -> None:
    """Heun's method under its name, as a program would register it."""
    register_solver(
        "heun", heun, takes_steps=HEUN.takes_steps, takes_eta=HEUN.takes_eta, estimate=HEUN.estimate, replace=True
    )


# -- contract ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILTIN)
def test_every_solver_keeps_the_contract(name):
    check_solver(name)


@pytest.mark.parametrize("solver", [heun, HEUN], ids=["builder", "spec"])
def test_a_solver_from_outside_keeps_the_contract(solver):
    check_solver(solver)


def shifted_back(schedule, steps, spacing):
    solver = ddim(schedule, steps, spacing)
    return Solver(np.concatenate([solver.table[:, :1] - 1, solver.table[:, 1:]], axis=1))


def without_end(schedule, steps, spacing):
    table = ddim(schedule, steps, spacing).table
    table[-1, 1:3] = 0.5
    return Solver(table)


def moved(schedule, steps, spacing):
    table = ddim(schedule, steps, spacing).table
    table[:-1, 2] += 0.01
    return Solver(table)


def half(schedule, steps, spacing):
    return Solver(ddim(schedule, steps, spacing).table.astype(np.float32))


def one_too_many(schedule, steps, spacing):
    return ddim(schedule, min(steps + 1, schedule.timesteps), spacing)


def unchecked(schedule, steps, spacing):
    return ddim(schedule, min(max(steps, 1), schedule.timesteps), spacing)


def frozen(schedule, steps, spacing):
    """The answer at pure noise, again and again: the mean, which calls itself a sample."""
    table = ddim(schedule, steps, spacing).table
    times = table[:, 0].astype(int)
    signal = np.sqrt(np.append(schedule.alpha_bar[times], 1.0))[1:]
    return Solver(solver_table(table[:, 0], np.zeros(steps), signal))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (shifted_back, "the first time is 998; noise is at T - 1"),
        (without_end, "it has to return x0"),
        (moved, "a point would move"),
        (half, "the table is float32"),
        (one_too_many, r"the table has shape \(2, 5\)"),
        (unchecked, "0 steps over .* are not refused"),
        (frozen, "the variance is off"),
        (lambda schedule: mean(schedule).table, "the builder returns ndarray"),
        (SolverSpec(mean, takes_steps=False, takes_eta=False, estimate="sample"), "is the estimate the mean"),
        (SolverSpec(ddpm, takes_steps=True, takes_eta=False, estimate="mean"), "is it a sample"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_contract_tells_what_is_broken(solver, message):
    with pytest.raises(AssertionError, match=message):
        check_solver(solver)


# -- a solver from outside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_heuns_method_converges_at_second_order(deviation):
    """Twice the steps, a quarter of the error (between 3.4 and 5: other orders are small by then)."""
    schedule = NoiseSchedule("linear", 20_000)
    errors = [
        abs(1 - gaussian_moments(schedule, heun(schedule, steps, "log_snr"), 0.0, deviation)[1] / deviation**2)
        for steps in (81, 161, 321)
    ]
    assert all(3.4 < coarse / fine < 5 for coarse, fine in pairwise(errors))


@pytest.mark.usefixtures("registered")
def test_a_solver_from_outside_generates_through_the_fused_sampler(generator: Generator, cells) -> None:
    """Heun's method and DDIM solve one equation: with many steps they agree, and no other graph is asked for cells."""
    asked = set()
    few, run = cells[:8], generator.engine.run

    class Recording:
        def __getattr__(self, name):
            return getattr(generator.engine, name)

        def run(self, graph, inputs, outputs=None):
            asked.add(graph)
            return run(graph, inputs, outputs)

    watched = Generator(Recording(), batch_size=generator.batch_size)
    found = watched.counterfactual(few, {"stim": "IFN"}, solver="heun", steps=101)
    assert asked == {"encoder_scm", "abduction", "scm", "sampler"}
    assert found.uns["causcell"]["solver"] == {"solver": "heun", "steps": 101, "spacing": "trailing", "eta": 0.0}
    assert found.uns["causcell"]["estimate"] == "sample"
    expected = generator.counterfactual(few, {"stim": "IFN"}, solver="ddim", steps=200)
    np.testing.assert_allclose(found.X, expected.X, atol=0.3)
    assert np.abs(found.X - expected.X).mean() < 0.03


def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.solvers", "plugin_solver = solver_from_outside:HEUN")
    assert "plugin_solver" in known_solvers()
    settings = SolverSettings("plugin_solver", steps=5)
    np.testing.assert_array_equal(settings.build(SCHEDULE).table, heun(SCHEDULE, 5).table)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_plugin_does_not_take_the_place_of_a_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.solvers", "ddim = solver_from_outside:HEUN")
    with pytest.warns(CausCellWarning, match=r"'ddim' .*of outside.* is left out: CausCell has one of that name"):
        known_solvers()
    assert solver_spec("ddim").build is ddim


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.solvers", "broken = no_such_module:SOLVER")
    with pytest.raises(ConfigurationError, match=r"'broken' .*of outside.* can't be imported: .*no_such_module"):
        SolverSettings("broken")


def test_a_plugin_that_is_no_solver_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.solvers", "function = solver_from_outside:heun")
    with pytest.raises(ConfigurationError, match=r"'function' is .*; give a SolverSpec"):
        SolverSettings("function")


def test_a_name_is_given_once():
    with pytest.raises(ConfigurationError, match=r"'ddim' exists already; take another name, or say replace=True"):
        register_solver("ddim", heun, takes_steps=True, takes_eta=False, estimate="sample")
    assert solver_spec("ddim").build is ddim
    register_solver("ddim", ddim, takes_steps=True, takes_eta=True, estimate="sample")  # the same again is no other


@pytest.mark.parametrize("name", ["", "my solver", "a-b"])
def test_a_name_is_an_identifier(name):
    with pytest.raises(ConfigurationError, match=rf"solver name {name!r} is not an identifier"):
        register_solver(name, heun, takes_steps=True, takes_eta=False, estimate="sample")


def test_an_estimate_is_a_mean_or_a_sample():
    with pytest.raises(ConfigurationError, match=r"estimate= 'mean' or 'sample'"):
        register_solver("median", heun, takes_steps=True, takes_eta=False, estimate="median")


def test_an_unknown_solver_is_told_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"solver 'dpm' is not known; did you mean 'ddpm'\? known are 'draw'"):
        SolverSettings("dpm", 10)


def test_what_needs_a_number_of_steps():
    """A builder with a default of its own needs none to be given."""
    assert {name: solver_spec(name).needs_steps for name in BUILTIN} == {
        "draw": False,
        "ddim": True,
        "dpmpp": True,
        "ddpm": True,
        "mean": False,
    }
    assert HEUN.needs_steps


def test_settings_are_equal_by_value_and_can_be_keys():
    assert SolverSettings("ddim", 10) == SolverSettings("ddim", steps=10, spacing="trailing", eta=0.0)
    assert len({SolverSettings("ddim", 10), SolverSettings("ddim", 10), SolverSettings("ddpm", 10)}) == 2


def test_the_old_list_of_names_warns():
    import causcell.diffusion.solvers as solvers

    with pytest.warns(DeprecationWarning, match=r"use causcell\.diffusion\.solvers\.known_solvers\(\)"):
        assert set(BUILTIN) <= set(solvers.SOLVERS)
