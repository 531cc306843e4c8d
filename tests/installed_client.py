"""Run by an installed wheel with ``[cpu]`` alone: a counterfactual atlas without torch, by command line and Python."""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import causcell
from causcell import Generator, open_repository


def main(models: str, folder: str) -> None:
    """Generate from the repository ``models`` in ``folder``; any failure is an exception."""
    for package in ("torch", "lightning", "onnx", "scanpy", "causcell_training.fitting"):
        found = _importable(package)
        assert not found, f"{package} should not be importable here"
    assert causcell.__version__ == metadata.version("causcell")
    packages = ("causcell", "causcell_training", "causcell_export")
    assert all((Path(causcell.__file__).parents[1] / package / "py.typed").is_file() for package in packages)
    manifest = open_repository(models).manifest
    rng = np.random.default_rng(0)
    mean, deviation = np.array(manifest.expression.mean), np.array(manifest.expression.deviation)
    values = np.maximum(mean + deviation * rng.standard_normal((50, len(mean))), 0).astype(np.float32)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(50)])
    cells = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(manifest.genes.names)))
    path, atlas = Path(folder) / "cells.h5ad", Path(folder) / "atlas.zarr"
    cells.write_h5ad(path)
    concept = manifest.concepts[-1]
    command = [sys.executable, "-m", "causcell", "generate", path, "--models", models, "--out", atlas]
    subprocess.run([*command, "--do", f"{concept.name}={concept.labels[-1]}", "--no-progress"], check=True)
    with Generator.open(models, threads=1) as generator:  # as many as the command takes
        expected = generator.counterfactual(cells, do={concept.name: concept.labels[-1]})
    np.testing.assert_array_equal(anndata.read_zarr(atlas).X.toarray(), expected.X)
    script = Path(sys.executable).parent / "causcell"
    told = subprocess.run([script, "verify", atlas, "--no-progress"], check=True, capture_output=True, text=True)
    assert "50 rows" in told.stdout, told.stdout
    print("1 passed, 0 failed")


def _importable(package: str) -> bool:
    try:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            return False
        importlib.import_module(package)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
