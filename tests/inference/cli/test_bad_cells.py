"""Cells that commands can't use: one or two lines that name the thing, the value and the remedy; nothing is written."""

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from commands import embed_words, generate_words, refused, says, train_words
from simulation import counts, replaced


def with_value(cells: anndata.AnnData, value: float) -> anndata.AnnData:
    values = counts(cells)
    values[5, 7] = value
    return replaced(cells, values)


def with_names(cells: anndata.AnnData, *, cell: str | None = None, gene: str | None = None) -> anndata.AnnData:
    """Copies in which the second cell's or gene's name is the given one."""
    changed = cells.copy()
    if cell is not None:
        changed.obs_names = [cells.obs_names[0], cell, *cells.obs_names[2:]]
    if gene is not None:
        changed.var_names = [cells.var_names[0], gene, *cells.var_names[2:]]
    return changed


def with_column(cells: anndata.AnnData, name: str, values: object) -> anndata.AnnData:
    changed = cells.copy()
    changed.obs[name] = values
    return changed


def with_an_empty_cell(cells: anndata.AnnData) -> anndata.AnnData:
    values = counts(cells)
    values[5] = 0
    return replaced(cells, values)


BAD_CELLS: dict[str, tuple[Callable[[anndata.AnnData], anndata.AnnData], list[str]]] = {
    "log1p for counts": (
        lambda c: replaced(c, np.log1p(counts(c))),
        ["declared as counts", "0.69", "cell_0000", "--expression log1p"],
    ),
    "NaN": (lambda c: with_value(c, np.nan), ["1 NaN or infinite", "cell_0005", "impute or remove"]),
    "infinite": (lambda c: with_value(c, np.inf), ["1 NaN or infinite", "cell_0005", "impute or remove"]),
    "negative": (lambda c: with_value(c, -2), ["negative", "-2", "cell_0005", "raw counts"]),
    "empty cell": (with_an_empty_cell, ["1 cells have no counts", "cell_0005", "filter_cells"]),
    "duplicated cells": (
        lambda c: with_names(c, cell="cell_0000"),
        ["1 cell names are duplicated", "cell_0000", "obs_names_make_unique"],
    ),
    "duplicated genes": (
        lambda c: with_names(c, gene="GENE0"),
        ["1 gene names are duplicated", "GENE0", "var_names_make_unique"],
    ),
}
"""Cells that neither training nor generation takes."""


BAD_FOR_GENERATION: dict[str, tuple[Callable[[anndata.AnnData], anndata.AnnData], list[str]]] = {
    "missing genes": (
        lambda c: c[:, 1:].copy(),
        ["missing", "GENE0", "--allow-missing-genes 0.0"],
    ),
    "another spelling": (
        lambda c: anndata.AnnData(c.X, obs=c.obs, var=pd.DataFrame(index=c.var_names.str.lower())),
        ["missing", "GENE", "upper and lower case"],
    ),
    "unknown label of a cell": (
        lambda c: with_column(c, "donor", ["d9", *c.obs["donor"].astype(str)[1:]]),
        ["'donor'", "'d9'", "1 cells", "'d1', 'd2', 'd3'", "NaN"],
    ),
}


BAD_FOR_TRAINING: dict[str, tuple[Callable[[anndata.AnnData], anndata.AnnData], list[str]]] = {
    "one label": (
        lambda c: with_column(c, "stim", "ctrl"),
        ["'stim'", "1 label ('ctrl')", "at least two", "leave it out"],
    ),
    "no label": (
        lambda c: with_column(c, "stim", pd.Categorical([None] * c.n_obs, categories=["ctrl"])),
        ["'stim'", "0 label", "at least two"],
    ),
    "continuous": (
        lambda c: with_column(c, "stim", np.linspace(0, 1, c.n_obs)),
        ["'stim' has 320", "320 cells are too few", "pandas.cut"],
    ),
    "no genes": (lambda c: c[:, :0].copy(), ["no gene"]),
    "too few": (lambda c: c[:12].copy(), ["12 cells are too few", "held_out"]),
}


def written(
    folder: Path, kind: str, make: Callable[[anndata.AnnData], anndata.AnnData], cells: anndata.AnnData
) -> Path:
    path = folder / f"{kind}.h5ad"
    if not path.exists():
        made = make(cells)
        made.write_h5ad(path)
    return path


@pytest.mark.filterwarnings("ignore:.*names are not unique")  # anndata's, while the bad file is written
@pytest.mark.parametrize("kind", [*BAD_CELLS, *BAD_FOR_TRAINING])
def test_cells_that_training_can_not_use(
    folder: Path, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make, fragments = (BAD_CELLS | BAD_FOR_TRAINING)[kind]
    says(refused(capsys, *train_words(written(folder, kind, make, cells), tmp_path / "run")), *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize("kind", [*BAD_CELLS, *BAD_FOR_GENERATION])
def test_cells_that_generation_can_not_use(
    folder: Path,
    repository: Path,
    cells: anndata.AnnData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    make, fragments = (BAD_CELLS | BAD_FOR_GENERATION)[kind]
    data = written(folder, kind, make, cells)
    says(refused(capsys, *generate_words(data, repository, tmp_path / "atlas.zarr", "--do", "stim=IFN")), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_counts_declared_as_log1p(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong scale the other way, in every command that reads cells."""
    good = folder / "good.h5ad"
    for words in (
        train_words(good, tmp_path / "run"),
        generate_words(good, repository, tmp_path / "atlas.zarr"),
        embed_words(good, repository, tmp_path / "embedded.h5ad"),
    ):
        message = refused(capsys, *words, "--expression", "log1p")
        says(message, "declared as log1p", "whole numbers", "--expression counts")
    assert list(tmp_path.iterdir()) == []


# -- files that hold no cells ------------------------------------------------------------------------------------------


def a_text_file(path: Path) -> None:
    path.write_text("cell\tgene\n")


def half_a_file(path: Path) -> None:
    content = (path.parent / "good.h5ad").read_bytes()
    path.write_bytes(content[: len(content) // 2])


def another_hdf5_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(3)


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def without_values(path: Path) -> None:
    good = anndata.read_h5ad(path.parent / "good.h5ad")
    anndata.AnnData(obs=good.obs, var=good.var).write_h5ad(path)


@pytest.mark.parametrize(
    ("name", "make", "fragments"),
    [
        ("absent.h5ad", None, ["there is no file", "absent.h5ad"]),
        ("absent.zarr", None, ["there is no file", "absent.zarr"]),
        ("table.csv", a_text_file, ["table.csv", "neither .h5ad nor .zarr", "write_h5ad"]),
        ("text.h5ad", a_text_file, ["text.h5ad", "can't be read"]),
        ("half.h5ad", half_a_file, ["half.h5ad", "can't be read"]),
        ("other.h5ad", another_hdf5_file, ["other.h5ad"]),
        ("folder.h5ad", an_empty_folder, ["folder.h5ad", "can't be read"]),
        ("empty.zarr", an_empty_folder, ["empty.zarr", "can't be read"]),
        ("nothing.h5ad", without_values, ["no expression in X", "layer"]),
    ],
)
def test_data_that_are_no_cells(
    folder: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    make: Callable[[Path], None] | None,
    fragments: list[str],
) -> None:
    path = folder / name
    if make is not None and not path.exists():
        make(path)
    says(refused(capsys, *train_words(path, tmp_path / "run")), *fragments)
    says(refused(capsys, *embed_words(path, repository, tmp_path / "embedded.h5ad")), *fragments)
    assert list(tmp_path.iterdir()) == []
