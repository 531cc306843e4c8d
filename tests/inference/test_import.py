"""The package as it is imported: light, with its public names on completion and its version in one place."""

import json
import runpy
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from paths import ROOT

import causcell

HEAVY = {"anndata", "torch", "pandas", "scanpy", "matplotlib", "numpy", "onnxruntime", "zarr"}
SECONDS = 0.3

IMPORT = """
import json, sys, time
start = time.process_time()
import causcell
causcell.__version__, dir(causcell)
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
"""


def fresh_import():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_loads_nothing_heavy_and_is_quick():
    """The median of three fresh processes, so that one hiccup of a shared machine does not fail it."""
    imports = [fresh_import() for _ in range(3)]
    loaded = {module.partition(".")[0] for each in imports for module in each["modules"]}
    assert "causcell" in loaded
    assert not HEAVY & loaded
    assert statistics.median(each["seconds"] for each in imports) < SECONDS


def test_all_names_are_there():
    objects = set(causcell.__all__) - {"__version__"}
    assert all(getattr(causcell, name).__name__ == name for name in objects)


def test_completion_shows_what_is_public_and_nothing_else():
    shown = dir(causcell)
    assert set(causcell.__all__) < set(shown)
    assert all(getattr(causcell, name) is not None for name in shown)
    assert {name for name in shown if name.startswith("_")} == {"__version__"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Generators'"):
        _ = causcell.Generators


# -- version -----------------------------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "inference/causcell/__init__.py"
    assert causcell.__version__ == metadata.version("causcell")


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_package_runs_as_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["causcell", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("causcell", run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"causcell {causcell.__version__}\n"


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["inference/causcell", "training/causcell_training", "export/causcell_export"])
def test_types_are_declared(package):
    assert (ROOT / package / "py.typed").is_file()
