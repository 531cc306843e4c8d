"""What ``import causcell`` costs: a script that only asks for the version should not wait for a runtime."""

import json
import statistics
import subprocess
import sys

import pytest

import causcell

HEAVY = {"anndata", "torch", "pandas", "scanpy", "matplotlib", "onnxruntime", "zarr"}
SECONDS = 0.3

IMPORT = """
import json, sys, time
start = time.perf_counter()
import causcell
seconds = time.perf_counter() - start
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
    assert all(getattr(causcell, name).__name__ == name for name in causcell.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Generators'"):
        _ = causcell.Generators
