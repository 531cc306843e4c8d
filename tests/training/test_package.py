"""The package's front: public names, and the old ones, which warn."""

import importlib
import os
import subprocess
import sys

import pytest

import causcell_training


def test_public_names_are_there_and_shown() -> None:
    assert dir(causcell_training) == causcell_training.__all__ == sorted(causcell_training.__all__)
    assert all(getattr(causcell_training, name).__name__ == name for name in causcell_training.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = causcell_training.train


def test_import_does_not_wait_for_torch() -> None:
    code = "import sys, causcell_training.command, causcell_training.fitting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("package", ["causcell_training", "causcell_export"])
@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_wait_passively_from_python_too(package: str, own: str | None) -> None:
    """Said before torch is loaded, which asks once; a word of the user's own stays."""
    code = f"import os, sys, {package}; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = rest | ({} if own is None else {"OMP_WAIT_POLICY": own})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", own or "PASSIVE"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plot", "causcell_training.curves"),
        ("evaluation.concepts", "causcell.evaluation.embeddings"),
        ("evaluation.effects", "causcell.evaluation.shifts"),
        ("evaluation.evaluate", "causcell.evaluation.evaluate"),
        ("evaluation.expression", "causcell.evaluation.expression"),
        ("evaluation.known_truth", "causcell.evaluation.known_truth"),
        ("evaluation.probes", "causcell.evaluation.probes"),
        ("evaluation.report", "causcell.evaluation.report"),
        ("evaluation.simulator", "causcell.evaluation.simulator"),
        ("evaluation.subject", "causcell.evaluation.data"),
        ("evaluation.table", "causcell.evaluation.table"),
    ],
)
def test_old_modules_warn_and_hold_what_the_new_ones_do(old: str, new: str) -> None:
    old = f"causcell_training.{old}"
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=rf"{old} is deprecated; use {new}"):
        module = importlib.import_module(old)
    home = importlib.import_module(new)
    own = [name for name, value in vars(home).items() if getattr(value, "__module__", None) == new]
    assert own
    assert all(getattr(module, name) is getattr(home, name) for name in own if not name.startswith("_"))


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("TrainingData", "causcell_training.data.cells"),
        ("prepare", "causcell_training.data.cells"),
        ("read_split", "causcell_training.data.split"),
        ("principal_axes", "causcell_training.data.components"),
        ("ShuffledBatches", "causcell_training.loop.batches"),
    ],
)
def test_old_names_of_the_data_module_warn(name: str, home: str) -> None:
    data = importlib.import_module("causcell_training.data")
    with pytest.warns(DeprecationWarning, match=rf"causcell_training\.data\.{name} is deprecated; use {home}\.{name}"):
        found = getattr(data, name)
    assert found is getattr(importlib.import_module(home), name)


def test_names_of_the_run_folders_files_moved_too() -> None:
    from causcell_training import run, run_folder

    with pytest.warns(DeprecationWarning, match="run_folder.METRICS_FILE"):
        assert run.METRICS_FILE == run_folder.METRICS_FILE
