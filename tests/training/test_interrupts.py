"""Ctrl-C and SIGTERM: the best model so far is kept, and whoever interrupted is told how to go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from commands import SMALL_MODEL, run_command
from short_runs import assert_same_weights, interrupt, tiny_config

from causcell._internal.cpus import available_cpus
from causcell._internal.interrupts import Terminated
from causcell.errors import RunError
from causcell.generator import Generator
from causcell_export import export
from causcell_training import Run, fit
from causcell_training.checkpoint_file import read_checkpoint

PROGRAM = """
import signal, sys
sys.path.insert(0, {support!r})
from short_runs import tiny_config
from simulation import simulated_cells
from causcell_training import fit
try:
    fit(simulated_cells(), sys.argv[1], config=tiny_config(**{{"optimisation.epochs": 10**6, "optimisation.patience": 10**6}}))
except KeyboardInterrupt as stopped:
    print(type(stopped).__name__, stopped)
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""  # noqa: E501


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)}


def signalled(words: list[str], number: signal.Signals, path: Path) -> tuple[int, str, str]:
    """Start a process, send it a signal once it has a best model, and return its exit status and what it printed."""
    child = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    end = time.monotonic() + 120
    while not (path / "checkpoints" / "best.safetensors").exists():
        assert child.poll() is None and time.monotonic() < end, child.communicate()
        time.sleep(0.02)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exception_that_tells_what_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    """Real signals to a program of its own; Lightning neither ends the process nor keeps a handler."""
    program = PROGRAM.format(support=str(Path(__file__).parents[1] / "support"))
    status, out, err = signalled(["-c", program, str(tmp_path / "run")], number, tmp_path / "run")
    assert (status, err) == (0, "")
    told, handlers = out.splitlines()
    name = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Terminated"}[number]
    assert told.startswith(f"{name} the best model so far (of epoch ")
    assert "resume=True" in told
    assert "unfinished=True" in told
    assert handlers == "True True"
    assert not [each.name for each in (tmp_path / "run").rglob(".*")]
    assert Run.load(tmp_path / "run", unfinished=True).provenance["unfinished"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_on_the_command_line_names_flags_and_ends_with_its_status(
    cells: anndata.AnnData, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = [
        "-m",
        "causcell",
        "train",
        str(tmp_path / "cells.h5ad"),
        "--concept",
        "stim",
        "--out",
        str(tmp_path / "run"),
    ]
    words += [*SMALL_MODEL, "--set", "optimisation.epochs=1000000", "--set", "optimisation.patience=1000000"]
    status, _, err = signalled([*words, "--no-progress"], number, tmp_path / "run")
    assert status == expected
    assert "Traceback" not in err
    assert "go on with --resume, or export it as it is with causcell export --unfinished" in err
    assert err.count("best model") == 1


def interrupted(cells: anndata.AnnData, path: Path, epoch: int, error: BaseException) -> KeyboardInterrupt:
    """What `fit` raises when an epoch (counted from 0) is interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, epoch, error)
        with pytest.raises(KeyboardInterrupt) as raised:
            fit(cells, path, config=tiny_config())
    return raised.value


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_an_interrupt_keeps_its_class_and_names_the_best_model(
    cells: anndata.AnnData, tmp_path: Path, kind: type[KeyboardInterrupt]
) -> None:
    told = interrupted(cells, tmp_path / "run", 4, kind())
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert type(told) is kind
    assert f"held-out MSE {best['facts']['best_validation_mse']:.3f}) is kept in '{tmp_path / 'run'}'" in str(told)


def test_an_interrupt_before_the_first_validation_says_so(cells: anndata.AnnData, tmp_path: Path) -> None:
    assert "before its first validation" in str(interrupted(cells, tmp_path / "run", 0, KeyboardInterrupt()))
    with pytest.raises(RunError, match="no model yet"):
        Run.load(tmp_path / "run", unfinished=True)


def test_leaving_the_process_is_not_taken_for_an_interrupt(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1, SystemExit(3))
        with pytest.raises(SystemExit) as raised:
            fit(cells, tmp_path / "run", config=tiny_config())
    assert raised.value.code == 3


@pytest.fixture
def threads_of_a_new_thread() -> Iterator[None]:
    """Sums depend on the number of compute threads, which is a thread's own: other tests may have changed it here."""
    before = torch.get_num_threads()
    torch.set_num_threads(available_cpus())
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_of_a_new_thread")
def test_training_in_a_thread_is_the_same_training(cells: anndata.AnnData, tmp_path: Path) -> None:
    """Two at once too: torch's random numbers are the process's."""
    alone = fit(cells, tmp_path / "alone", config=tiny_config())
    runs: dict[int, Run] = {}

    def train(number: int) -> None:
        runs[number] = fit(cells, tmp_path / f"run{number}", config=tiny_config())

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs.values():
        assert_same_weights(run, alone)
    assert len(runs) == 2


# -- the best model so far ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(cells, path, 4, KeyboardInterrupt())
    return path


def test_the_best_model_of_an_unfinished_run_is_that_of_a_run_that_finished_then(
    cells: anndata.AnnData, stopped: Path, tmp_path: Path
) -> None:
    unfinished = Run.load(stopped, unfinished=True)
    finished = fit(cells, tmp_path / "run", config=tiny_config(**{"optimisation.epochs": 4}))
    assert_same_weights(unfinished, finished)
    assert unfinished.provenance["held_out"] == finished.provenance["held_out"]
    assert unfinished.provenance["cells"] == finished.provenance["cells"]
    assert unfinished.training_cells == finished.training_cells
    assert unfinished.versions == finished.versions
    np.testing.assert_array_equal(unfinished.reference.exogenous, finished.reference.exogenous)
    assert unfinished.provenance["unfinished"] is True
    assert "not finished" in repr(unfinished)


@pytest.mark.slow
def test_the_best_model_of_an_unfinished_run_is_exported_and_marked(
    cells: anndata.AnnData, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("export", stopped, "--out", tmp_path / "models") == 2
    assert "export its best model so far with --unfinished" in capsys.readouterr().err
    before = sorted(each.name for each in stopped.rglob("*"))
    assert run_command("export", stopped, "--out", tmp_path / "models", "--unfinished") == 0
    assert sorted(each.name for each in stopped.rglob("*")) == before
    with Generator.open(tmp_path / "models", threads=1) as generator:
        assert generator.counterfactual(cells[:4].copy(), do={"stim": "ctrl"}).shape == (4, 60)
    capsys.readouterr()
    assert run_command("inspect", tmp_path / "models") == 0
    assert "unfinished: True" in capsys.readouterr().out


def test_a_finished_run_is_exported_as_it_is(cells: anndata.AnnData, finished: Run) -> None:
    assert Run.load(finished.path, unfinished=True).provenance == finished.provenance


@pytest.mark.slow
def test_nothing_of_torch_or_numpy_that_is_set_elsewhere_changes_a_run(cells: anndata.AnnData, tmp_path: Path) -> None:
    plain = fit(cells, tmp_path / "plain", config=tiny_config())
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    threads = torch.get_num_threads()
    try:
        with np.errstate(all="raise"), torch.no_grad(), torch.autocast("cpu"):
            other = fit(cells, tmp_path / "other", config=tiny_config())
            loaded = Run.load(tmp_path / "other")
            export(loaded, tmp_path / "models")
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert_same_weights(other, plain)
    assert_same_weights(loaded, plain)
