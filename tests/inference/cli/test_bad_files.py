"""Files that commands can't read: one message that names file, element and what is wrong; nothing is written."""

import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from commands import embed_words, generate_words, refused, says, train_words


def zeroed_indptr(file: h5py.File) -> None:
    file["X/indptr"][:] = 0


def index_out_of_range(file: h5py.File) -> None:
    file["X/indices"][5] = 10**6


def soft_link(file: h5py.File) -> None:
    file.move("obs/stim", "stim")
    file["obs/stim"] = h5py.SoftLink("/stim")


def values_elsewhere(file: h5py.File) -> None:
    length = file["X/data"].shape[0]
    del file["X/data"]
    file.create_dataset("X/data", (length,), "f4", external=[("/etc/passwd", 0, 4 * length)])


def lost_codes(file: h5py.File) -> None:
    del file["obs/stim/codes"]


def short_column(file: h5py.File) -> None:
    codes = file["obs/stim/codes"][:-3]
    del file["obs/stim/codes"]
    file["obs/stim/codes"] = codes


DAMAGES = {
    zeroed_indptr: ["X/indptr", "it ends with 0"],
    index_out_of_range: ["X/indices", "it holds 1000000"],
    soft_link: ["'obs/stim' is a soft link"],
    values_elsewhere: ["'X/data'", "another file", "/etc/passwd"],
    lost_codes: ["obs/stim"],
    short_column: ["obs/stim/codes", "shape"],
}


COMMANDS = {
    "train": lambda data, models, folder: train_words(data, folder / "run"),
    "embed": lambda data, models, folder: embed_words(data, models, folder / "embedded.h5ad"),
    "generate": lambda data, models, folder: generate_words(data, models, folder / "atlas.zarr", "--do", "stim=IFN"),
}


@pytest.fixture(scope="session")
def sparse_file(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sparse") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.mark.parametrize("damage", list(DAMAGES), ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_damaged_file_is_told_in_one_message(repository, sparse_file, tmp_path, capsys, command, damage):
    path = Path(shutil.copy(sparse_file, tmp_path / "damaged.h5ad"))
    with h5py.File(path, "r+") as file:
        damage(file)
    message = refused(capsys, *COMMANDS[command](path, repository, tmp_path))
    says(message, "damaged.h5ad", *DAMAGES[damage])
    assert [each.name for each in tmp_path.iterdir()] == ["damaged.h5ad"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_chunk_that_is_missing_is_told_in_one_message(repository, cells, tmp_path, capsys, command):
    cells.write_zarr(tmp_path / "damaged.zarr")
    chunks = [file for file in (tmp_path / "damaged.zarr" / "X" / "indices").rglob("*") if file.is_file()]
    next(file for file in chunks if not file.name.startswith((".", "zarr"))).unlink()
    message = refused(capsys, *COMMANDS[command](tmp_path / "damaged.zarr", repository, tmp_path))
    says(message, "damaged.zarr", "X/indices", "a chunk of its values is missing")


def test_the_file_of_these_tests_is_sparse(sparse_file):
    with h5py.File(sparse_file) as file:
        assert np.diff(file["X/indptr"][:]).min() > 0
