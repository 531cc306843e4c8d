"""Settings of other packages that a user has changed do not change results; and none of them is changed here."""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from atlases import tree
from paths import MODEL_REPOSITORY

from causcell.effects import simulated_trial
from causcell.errors import CausCellWarning
from causcell.evaluation.report import write_report
from causcell.evaluation.table import Table
from causcell.generator import Generator

matplotlib = pytest.importorskip("matplotlib")

PANDAS_2 = int(pd.__version__.partition(".")[0]) < 3
ANNDATA = {
    "zarr_write_format": 2,
    "auto_shard_zarr_v3": True,
    "allow_write_nullable_strings": True,
    "remove_unused_categories": False,
    "check_uniqueness": False,
    "use_sparse_array_on_read": True,
    "write_csr_csc_indices_with_min_possible_dtype": True,
}
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "pandas: new strings": lambda: pd.option_context("future.infer_string", True) if PANDAS_2 else with_nothing(),
    "pandas: copy on write": lambda: pd.option_context("mode.copy_on_write", True) if PANDAS_2 else with_nothing(),
    "pandas: string storage": lambda: pd.option_context("mode.string_storage", "python"),
    "pandas: display": lambda: pd.option_context("display.max_rows", 2, "display.precision", 1),
    "numpy: printing": lambda: np.printoptions(precision=1, threshold=3, suppress=True),
    "numpy: errors are raised": lambda: np.errstate(divide="raise", invalid="raise", over="raise"),
    "zarr: older format": lambda: zarr.config.set({"default_zarr_format": 2, "array.order": "F"}),
    "zarr: missing chunks": lambda: zarr.config.set({"array.write_empty_chunks": True}),
    "matplotlib": lambda: matplotlib.rc_context(
        {"font.size": 30, "text.usetex": True, "axes.prop_cycle": matplotlib.cycler(color=["k"]), "savefig.dpi": 20}
    ),
} | {f"anndata: {name}": lambda name=name, value=value: changed(name, value) for name, value in ANNDATA.items()}


@contextlib.contextmanager
def with_nothing() -> Iterator[None]:
    pytest.skip("is the only way there is in pandas 3")
    yield


@contextlib.contextmanager
def changed(name: str, value: Any) -> Iterator[None]:
    if not hasattr(anndata.settings, name):
        pytest.skip(f"anndata {anndata.__version__} has no setting {name}")
    with anndata.settings.override(**{name: value}):
        yield


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with Generator.open(MODEL_REPOSITORY, threads=1, batch_size=16) as opened:
        yield opened


@pytest.fixture(scope="module")
def path(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 24 cells with the labels of the model's concepts and a name for each."""
    expression, rng = generator.manifest.expression, np.random.default_rng(0)
    mean, deviation = np.array(expression.mean), np.array(expression.deviation)
    values = np.maximum(mean + deviation * rng.standard_normal((24, len(mean))), 0).astype(np.float32)
    obs = pd.DataFrame(index=[f"cell {i}" for i in range(24)])
    for concept in generator.schema.concepts:
        obs[concept.name] = pd.Categorical(np.resize(concept.labels, 24))
    cells = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(generator.manifest.genes.names)))
    path = tmp_path_factory.mktemp("others") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def expected(generator: Generator, path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(generator, path, tmp_path_factory.mktemp("expected"))


def results(generator: Generator, path: Path, folder: Path) -> dict[str, Any]:
    """What is written and returned: an atlas, embeddings, counterfactuals, and a report."""
    concept = generator.schema.concepts[-1]
    do = [{}, {concept.name: concept.labels[0]}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        generator.write_atlas(path, folder / "atlas.zarr", do=do)
        returned = generator.counterfactual(path, do=do)
        embedded = generator.embed(path)
        trial = simulated_trial(generator, path, concept.name)
    with anndata.settings.override(allow_write_nullable_strings=True):  # else anndata writes no new strings of pandas
        for name, made in (("returned", returned), ("embedded", embedded), ("trial", trial)):
            made.write_h5ad(folder / f"{name}.h5ad")
    read = anndata.read_zarr(folder / "atlas.zarr")
    np.testing.assert_array_equal(read.X.toarray(), returned.X)
    rows = {"model, mean": {"MSE": (0.123456, 0.2)}, "PCA-20": {"MSE": (1e-9, 2e10)}}
    report = folder / "report"
    write_report(report, "Title", {"command": "causcell"}, [Table("Table", "i", "l", rows)])
    return {
        "atlas": tree(folder / "atlas.zarr"),
        "expression": returned.X.tobytes(),
        "obs": returned.obs.astype(str).to_dict(),
        "embeddings": embedded.obsm["X_causcell"].tobytes(),
        "effects": trial.layers["effect"].tobytes(),
        "labels": embedded.obs.astype(str).to_dict(),
        "json": json.loads((report / "report.json").read_text()),
        "page": (report / "report.html").read_text(),
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_changes_no_result(
    generator: Generator, path: Path, expected: dict[str, Any], tmp_path: Path, name: str
) -> None:
    with SETTINGS[name]():
        found = results(generator, path, tmp_path)
    assert found["atlas"].keys() == expected["atlas"].keys()
    assert [file for file, content in found["atlas"].items() if content != expected["atlas"][file]] == []
    assert [what for what in expected if found[what] != expected[what]] == []


def state() -> dict[str, Any]:
    """Settings of other packages that a user may have changed."""
    names = ("mode.copy_on_write", "future.infer_string") if PANDAS_2 else ()
    return {
        "pandas": {name: pd.get_option(name) for name in (*names, "mode.string_storage", "display.max_rows")},
        "anndata": {name: getattr(anndata.settings, name, None) for name in ANNDATA},
        "numpy": (np.get_printoptions(), np.geterr()),
        "zarr": copy.deepcopy(zarr.config.to_dict()),
        "matplotlib": {name: value for name, value in matplotlib.rcParams.items() if name != "backend"},
        "backend": dict.__getitem__(matplotlib.rcParams, "backend"),  # as it is: asking for it would choose one
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (logging.root.level, list(logging.root.handlers), logging.lastResort),
    }


def test_no_setting_of_another_package_is_changed(generator: Generator, path: Path, tmp_path: Path) -> None:
    before = state()
    results(generator, path, tmp_path)
    after = state()
    assert [what for what in before if before[what] != after[what]] == []
