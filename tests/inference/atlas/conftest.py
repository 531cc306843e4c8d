"""Atlases that the tests of this folder share; see `atlases`."""

import shutil
from pathlib import Path
from typing import Any

import anndata
import pytest
from atlases import CELLS, OPTIONS, AtlasRecipe, tree, write_zarr

from causcell.generator import Generator


@pytest.fixture(scope="session")
def recipe(generator: Generator, cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> AtlasRecipe:
    """An atlas of 160 cells in one file, of 8 shards."""
    path = tmp_path_factory.mktemp("recipe") / "cells.h5ad"
    cells[:CELLS].copy().write_h5ad(path)
    return AtlasRecipe(generator, path)


@pytest.fixture(scope="session")
def whole_atlas(recipe: AtlasRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas of `recipe`, made without an interruption; treat as read-only (copy the folder before changing)."""
    path = tmp_path_factory.mktemp("whole_atlas") / "atlas.zarr"
    recipe.write(path)
    return path


@pytest.fixture(scope="session")
def whole(whole_atlas: Path) -> dict[str, bytes]:
    """Files of the atlas of `recipe`, made without an interruption."""
    return tree(whole_atlas)


@pytest.fixture
def finished(whole_atlas: Path, tmp_path: Path) -> Path:
    """A copy of the finished atlas of `recipe`, to do harm to."""
    return Path(shutil.copytree(whole_atlas, tmp_path / "atlas.zarr"))


@pytest.fixture(scope="session")
def two_files(generator: Generator, cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> AtlasRecipe:
    """An atlas of 160 cells in two files: 100 in an .h5ad, 60 in a .zarr whose genes stand in another order.

    Its ``X`` is a CSR matrix, that of `recipe` dense.
    """
    folder = tmp_path_factory.mktemp("two_files")
    cells[:100].write_h5ad(folder / "a.h5ad")
    write_zarr(cells[100:CELLS, ::-1], folder / "b.zarr")
    files = {"a": str(folder / "a.h5ad"), "b": str(folder / "b.zarr")}
    return AtlasRecipe(generator, files, {**OPTIONS, "layout": "csr"})


@pytest.fixture(scope="session")
def whole_of_two(two_files: AtlasRecipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the atlas of `two_files`, as this process makes it."""
    path = tmp_path_factory.mktemp("whole_of_two") / "atlas.zarr"
    two_files.write(path)
    return tree(path)


@pytest.fixture(scope="session")
def cluster() -> Any:
    """Two processes of a real Dask cluster; a test may kill one, which the cluster replaces."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as running:
        yield running
