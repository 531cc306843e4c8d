"""Memory does not grow with the atlas."""

import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from simulation import simulated_cells

pytestmark = pytest.mark.slow  # atlases of several sizes are written

SCRIPT = """
import json, resource, sys, warnings
warnings.simplefilter("ignore")
from causcell import Generator

models, data, out, draws, layout = sys.argv[1:]
with Generator.open(models, threads=1) as generator:
    made = generator.write_atlas(
        data, out, {"stim": "IFN"}, draws=int(draws), layout=layout, chunk_size=200 * 250, shard_size=200 * 10_000
    )
print(json.dumps({"rows": made.rows, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Write 10,000 cells, the same counts over and over."""
    some = simulated_cells(400)
    rows = np.arange(10_000) % some.n_obs
    cells = anndata.AnnData(
        some.X[rows],
        obs=some.obs.iloc[rows].set_axis([f"cell_{i}" for i in range(10_000)]),
        var=pd.DataFrame(index=some.var_names),
    )
    path = tmp_path_factory.mktemp("many") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_peak_memory_depends_on_the_batch_and_not_on_the_rows(repository, many, tmp_path, layout):
    """Ten times the rows of one source: 180,000 more rows would be 36 MB of values, and their names and labels as much
    again; what is allowed is what an allocator may keep of batches that are ten times as large (0.5 MB each)."""
    peaks = {}
    for draws in (2, 20):
        words = [repository, many, tmp_path / f"{draws}.zarr", draws, layout]
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        assert told["rows"] == 10_000 * draws
        peaks[draws] = told["peak"]
    assert peaks[20] - peaks[2] < 25e6, peaks
    assert peaks[20] < 1.2 * peaks[2]
