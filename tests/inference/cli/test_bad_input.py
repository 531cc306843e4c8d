"""Bad input: exit status 2, one or two lines that name the thing, the value and the remedy, and nothing written."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from causcell.cli.main import main
from causcell.repository.manifest import Manifest
from causcell_export import exporter as exporting
from causcell_training import Run


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The message of a command that can't be carried out."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("error: ")
    assert len(err) < 1200
    return err


def says(message: str, *fragments: str) -> None:
    """The message holds each fragment, in any order."""
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} not in {message!r}"


# -- cells -------------------------------------------------------------------------------------------------------------


def counts(cells: anndata.AnnData) -> np.ndarray:
    return cells.X.toarray().astype(np.float32)


def replaced(cells: anndata.AnnData, values: np.ndarray) -> anndata.AnnData:
    return anndata.AnnData(sparse.csr_matrix(values), obs=cells.obs, var=cells.var)


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
        ["'stim'", "continuous", "pandas.cut"],
    ),
    "no genes": (lambda c: c[:, :0].copy(), ["no gene"]),
    "too few": (lambda c: c[:12].copy(), ["12 cells are too few", "held_out"]),
}


@pytest.fixture(scope="module")
def folder(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``good.h5ad``, ``log1p.h5ad`` and a file of each bad kind."""
    path = tmp_path_factory.mktemp("bad")
    cells.write_h5ad(path / "good.h5ad")
    replaced(cells, np.log1p(counts(cells))).write_h5ad(path / "log1p.h5ad")
    return path


def written(
    folder: Path, kind: str, make: Callable[[anndata.AnnData], anndata.AnnData], cells: anndata.AnnData
) -> Path:
    path = folder / f"{kind}.h5ad"
    if not path.exists():
        made = make(cells)
        made.write_h5ad(path)
    return path


def train(data: Path, out: Path, *words: object, concept: str = "stim") -> list[object]:
    return ["train", data, "--out", out, "--concept", concept, "--genes", "all", "--no-progress", *words]


def generate(data: Path, models: Path, out: Path, *words: object) -> list[object]:
    return ["generate", data, "--models", models, "--out", out, "--no-progress", *words]


def embed(data: Path, models: Path, out: Path, *words: object) -> list[object]:
    return ["embed", data, "--models", models, "--out", out, "--no-progress", *words]


@pytest.mark.filterwarnings("ignore:.*names are not unique")  # anndata's, while the bad file is written
@pytest.mark.parametrize("kind", [*BAD_CELLS, *BAD_FOR_TRAINING])
def test_cells_that_training_can_not_use(
    folder: Path, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make, fragments = (BAD_CELLS | BAD_FOR_TRAINING)[kind]
    says(refused(capsys, *train(written(folder, kind, make, cells), tmp_path / "run")), *fragments)
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
    says(refused(capsys, *generate(data, repository, tmp_path / "atlas.zarr", "--do", "stim=IFN")), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_counts_declared_as_log1p(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong scale the other way, in every command that reads cells."""
    good = folder / "good.h5ad"
    for words in (
        train(good, tmp_path / "run"),
        generate(good, repository, tmp_path / "atlas.zarr"),
        embed(good, repository, tmp_path / "embedded.h5ad"),
    ):
        message = refused(capsys, *words, "--expression", "log1p")
        says(message, "declared as log1p", "whole numbers", "--expression counts")
    assert list(tmp_path.iterdir()) == []


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
    says(refused(capsys, *train(path, tmp_path / "run")), *fragments)
    says(refused(capsys, *embed(path, repository, tmp_path / "embedded.h5ad")), *fragments)
    assert list(tmp_path.iterdir()) == []


# -- options of train --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--concept", "batch"], ["'batch'", "columns are", "'stim', 'donor', 'cell_type', 'state'"]),
        (["--concept", "stim"], ["named twice", "'stim'"]),
        (["--edge", "stim:batch"], ["stim:batch", "'batch'", "no concept", "'stim'"]),
        (["--edge", "stim:"], ["'stim:'", "PARENT:CHILD"]),
        (["--edge", "stim"], ["'stim'", "PARENT:CHILD"]),
        (["--edge", "stim:stim"], ["cycle", "stim -> stim", "leave one"]),
        (
            ["--concept", "state", "--edge", "stim:state", "--edge", "state:stim"],
            ["cycle", "stim", "state", "->", "leave one"],
        ),
        (["--concept", "state", "--edge", "stim:state", "--edge", "stim:state"], ["given twice", "stim:state"]),
        (["--expression", "cpm"], ["expression", "'cpm'", "'counts'", "'log1p'"]),
        (["--layer", "spliced"], ["'spliced'", "layers are"]),
        (["--genes", "0"], ["--genes", "0", "'all'"]),
        (["--genes=-7"], ["--genes", "-7", "'all'"]),
        (["--genes=--7"], ["--7"]),
        (["--genes", "panel.txt"], ["--genes", "'panel.txt'", "'all'", "file of gene names"]),
        (["--seed", "-1"], ["seed", "-1", "greater than or equal to 0"]),
        (["--set", "model.width"], ["--set", "'model.width'", "SECTION.KEY=VALUE"]),
        (["--set", "model.breadth=3"], ["'model.breadth'", "3"]),
        (["--set", "optimisation.epochs=0"], ["'optimisation.epochs'", "0", "greater than or equal to 1"]),
        (["--set", "optimisation.held_out=few"], ["'optimisation.held_out'", "'few'", "number"]),
        (["--config", "absent.toml"], ["--config", "absent.toml", "can't be read"]),
        (["--split", "absent.csv"], ["split", "absent.csv", "columns cell and split"]),
        (["--resume"], ["no checkpoint", "without --resume"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_options_that_training_can_not_use(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], fragments: list[str]
) -> None:
    defaults = train(folder / "good.h5ad", tmp_path / "run")
    says(refused(capsys, *defaults, *words), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_training_without_a_concept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(refused(capsys, "train", folder / "good.h5ad", "--out", tmp_path / "run"), "no concept", "at least one")


@pytest.mark.parametrize(
    ("option", "content", "fragments"),
    [
        ("--config", b"[model\n", ["--config", "can't be read"]),
        ("--config", b"[model]\nbreadth = 3\n", ["'model.breadth'", "3"]),
        ("--config", b"\x89HDF\xff\xfe", ["--config", "can't be read"]),
        ("--split", b"name,part\ncell_0000,train\n", ["split", "columns cell and split"]),
        ("--split", b"cell,split\ncell_0000,train\n", ["319 cells", "'cell_0001'", "give each cell a part"]),
        ("--split", b"cell,split\n" + b"".join(b"cell_%04d,dev\n" % i for i in range(320)), ["'dev'", "'train'"]),
        ("--split", b"\x89HDF\xff\xfe", ["split"]),
        ("--genes", b"GENE1\nNOSUCH\n", ["1 of 2", "'NOSUCH'"]),
        ("--genes", b"GENE1\nGENE1\nGENE2\n", ["duplicated", "'GENE1'"]),
        ("--genes", b"", ["--genes", "0 genes"]),
        ("--genes", b"\x89HDF\xff\xfe", ["--genes"]),
    ],
    ids=[
        "bad TOML",
        "unknown setting",
        "binary settings",
        "split without columns",
        "split without cells",
        "split of unknown parts",
        "binary split",
        "unknown gene",
        "gene twice",
        "no gene",
        "binary genes",
    ],
)
def test_files_that_training_can_not_use(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: bytes,
    fragments: list[str],
) -> None:
    (tmp_path / "given").write_bytes(content)
    says(refused(capsys, *train(folder / "good.h5ad", tmp_path / "run"), option, tmp_path / "given"), *fragments)
    assert not (tmp_path / "run").exists()


# -- options of generate and embed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--do", "stim=IL2"], ["'stim'", "'IL2'", "'IFN', 'ctrl'"]),
        (["--do", "dose=3"], ["no concept 'dose'", "'stim', 'donor', 'cell_type', 'state'"]),
        (["--do", "stim"], ["'stim'", "CONCEPT=LABEL"]),
        (["--do", "=IFN"], ["'=IFN'", "CONCEPT=LABEL"]),
        (["--do", "stim="], ["'stim='", "CONCEPT=LABEL"]),
        (["--do", "stim=IFN", "--do", "stim=ctrl"], ["'stim'", "'IFN'", "'ctrl'", "--grid"]),
        (["--do", "stim=IFN", "--grid", "stim"], ["'stim'", "--do and --grid", "leave one"]),
        (["--grid", "stim", "--grid", "stim"], ["'stim'", "twice"]),
        (["--grid", "dose"], ["no concept 'dose'", "'stim'"]),
        (["--mode", "undo"], ["mode", "'undo'", "'do', 'exogenous', 'isolated'"]),
        (["--preset", "best"], ["preset", "'best'", "'mean'", "'balanced'", "'accurate'"]),
        (["--steps", "5"], ["steps", "--solver"]),
        (["--eta", "0.5"], ["eta", "--solver"]),
        (["--spacing", "uniform"], ["spacing", "--solver"]),
        (["--solver", "euler", "--steps", "5"], ["'euler'", "'ddim'", "'ddpm'", "'mean'"]),
        (["--solver", "euler"], ["'euler'", "'ddim'", "'ddpm'", "'mean'"]),
        (["--solver", "ddim"], ["'ddim'", "--steps"]),
        (["--solver", "ddim", "--steps", "0"], ["0 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "-3"], ["-3 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "1001"], ["1001 steps", "1 to 1000"]),
        (["--solver", "ddim", "--steps", "5", "--eta", "1.5"], ["eta", "1.5", "0", "1"]),
        (["--solver", "ddim", "--steps", "5", "--spacing", "log"], ["spacing", "'log'", "'trailing', 'uniform'"]),
        (["--solver", "mean", "--steps", "5"], ["mean", "5", "leave it out"]),
        (["--solver", "ddpm", "--steps", "5", "--eta", "0.5"], ["eta", "ddpm", "leave it out"]),
        (["--solver", "ddim", "--steps", "5", "--preset", "mean"], ["'mean'", "'ddim'", "leave one out"]),
        (["--draws", "0"], ["draws", "0", "at least 1"]),
        (["--seed", "-1"], ["seed", "-1", "0 to"]),
        (["--batch-size", "0"], ["batch size", "0", "at least 1"]),
        (["--threads", "0"], ["threads", "0", "at least 1"]),
        (["--dtype", "int8"], ["dtype", "'int8'", "'float32', 'float16'"]),
        (["--expression", "cpm"], ["'cpm'", "'counts', 'log1p'"]),
        (["--layer", "spliced"], ["'spliced'", "layers are"]),
        (["--allow-missing-genes", "1.5"], ["allow_missing_genes", "1.5", "below 1"]),
        (["--where", "dose == 3"], ["--where", "'dose == 3'", "dose", "'stim', 'donor'"]),
        (["--where", "stim =="], ["--where", "'stim =='", "pandas query"]),
        (["--where", "stim"], ["--where", "'stim'", "yes or no"]),
        (["--where", "stim == 'nothing'"], ["no cells", "stim == 'nothing'"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_options_that_generation_can_not_use(
    folder: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    fragments: list[str],
) -> None:
    says(refused(capsys, *generate(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words)), *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--where", "stim"], ["--where", "'stim'", "yes or no"]),
        (["--layer", "spliced"], ["'spliced'", "layers are"]),
        (["--batch-size", "-1"], ["batch size", "-1", "at least 1"]),
        (["--threads", "-1"], ["threads", "-1", "at least 1"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_options_that_embedding_can_not_use(
    folder: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    fragments: list[str],
) -> None:
    says(refused(capsys, *embed(folder / "good.h5ad", repository, tmp_path / "embedded.h5ad", *words)), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_counts_for_a_model_of_log1p_values(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How such values were normalised is not known: counts can't be brought to their scale."""
    as_trained = Manifest.preprocessing.fget
    assert as_trained is not None
    monkeypatch.setattr(Manifest, "preprocessing", property(lambda self: replace(as_trained(self), scale="log1p")))
    words = generate(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", "--expression", "counts")
    says(refused(capsys, *words), "trained on log1p", "give log1p values")


# -- places to write to ------------------------------------------------------------------------------------------------


def writers(folder: Path, repository: Path, run: Run, out: Path) -> dict[str, list[object]]:
    """Each command that writes, with ``out`` as its place but for the suffix."""
    good = folder / "good.h5ad"
    return {
        "train": train(good, out),
        "export": ["export", run.path, "--out", out],
        "embed": embed(good, repository, out.with_suffix(".h5ad")),
        "generate": generate(good, repository, out.with_suffix(".zarr")),
        "demo": ["demo", "--out", out, "--no-progress"],
    }


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_that_holds_something_is_refused_and_kept(
    folder: Path, repository: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = writers(folder, repository, run, tmp_path / "taken")[command]
    place = Path(str(words[words.index("--out") + 1]))
    place.mkdir()
    (place / "mine").write_text("kept")
    says(refused(capsys, *words), str(place), "exists already", "remove it, or name another place")
    assert [path.relative_to(place).as_posix() for path in place.rglob("*")] == ["mine"]
    shutil.rmtree(place)
    place.write_text("mine, too")
    says(refused(capsys, *words), str(place), "exists already")
    assert place.read_text() == "mine, too"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_inside_a_file_is_refused(
    folder: Path, repository: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    words = writers(folder, repository, run, tmp_path / "file" / "out")[command]
    says(refused(capsys, *words), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["train", "export", "embed", "generate", "demo"])
def test_a_place_that_can_not_be_made_is_refused(
    folder: Path, repository: Path, run: Run, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nobody, root included, makes folders in /proc."""
    says(refused(capsys, *writers(folder, repository, run, Path("/proc/causcell/out"))[command]), "/proc/causcell")


@pytest.mark.parametrize(
    ("command", "fragment"), [("embed", "does not end in .h5ad"), ("generate", "ends neither in .zarr nor in .h5ad")]
)
def test_a_place_of_another_kind_is_refused(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, fragment: str
) -> None:
    out = tmp_path / "result.csv"
    words = [command, folder / "good.h5ad", "--models", repository, "--out", out]
    says(refused(capsys, *words), str(out), fragment)


# -- repositories and runs ---------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edited_manifest(models: Path) -> None:
    text = (models / "manifest.json").read_text()
    (models / "manifest.json").write_text(text.replace('"ctrl"', '"rest"', 1))


def newer_manifest(models: Path) -> None:
    text = (models / "manifest.json").read_text()
    (models / "manifest.json").write_text(text.replace('"schema_version": 1', '"schema_version": 99', 1))


def lacking_manifest(models: Path) -> None:
    (models / "manifest.json").write_text('{"schema_version": 1}')


BAD_REPOSITORIES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "truncated graph": (
        lambda m: truncate(m / "denoiser/1/model.onnx"),
        ["denoiser/1/model.onnx", "truncated", "export"],
    ),
    "missing graph": (lambda m: (m / "scm/1/model.onnx").unlink(), ["scm/1/model.onnx", "missing", "export again"]),
    "truncated reference": (lambda m: truncate(m / "reference.npz"), ["reference.npz", "truncated", "export again"]),
    "edited configuration": (
        lambda m: (m / "scm/config.pbtxt").write_text("name: 'scm'"),
        ["scm/config.pbtxt", "changed", "export again"],
    ),
    "edited manifest": (edited_manifest, ["manifest.json", "edited after export", "restore it, or export again"]),
    "newer manifest": (newer_manifest, ["manifest.json", "schema version 99", "up to 1", "update causcell"]),
    "truncated manifest": (lambda m: truncate(m / "manifest.json") or truncate(m / "manifest.json"), ["manifest.json"]),
    "lacking manifest": (lacking_manifest, ["manifest.json", "not a valid manifest", "export again"]),
    "no manifest": (
        lambda m: (m / "manifest.json").unlink(),
        ["no model repository", "manifest.json", "causcell export"],
    ),
    "nothing": (shutil.rmtree, ["no model repository", "manifest.json", "causcell export"]),
}


@pytest.mark.parametrize("kind", BAD_REPOSITORIES)
def test_repositories_that_are_not_as_exported(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make, fragments = BAD_REPOSITORIES[kind]
    models = tmp_path / "models"
    shutil.copytree(repository, models)
    make(models)
    good = folder / "good.h5ad"
    for words in (
        ["inspect", models],
        ["inspect", models, "--json"],
        generate(good, models, tmp_path / "atlas.zarr", "--do", "stim=IFN"),
        embed(good, models, tmp_path / "embedded.h5ad"),
    ):
        says(refused(capsys, *words), *fragments)
    assert {path.name for path in tmp_path.iterdir()} <= {"models"}


def test_a_location_that_is_no_path(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", folder / "good.h5ad", "--models", "ftp://host/models", "--out", tmp_path / "atlas.zarr"]
    says(refused(capsys, *words), "ftp://host/models")


BAD_RUNS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (shutil.rmtree, ["no finished training run", "train first"]),
    "unfinished": (
        lambda r: ((r / "run.json").unlink(), (r / "checkpoints").mkdir()),
        ["no finished training run", "--resume"],
    ),
    "truncated weights": (lambda r: truncate(r / "weights.safetensors"), ["can't be read", "train again"]),
    "truncated description": (lambda r: (r / "run.json").write_text('{"config": {'), ["can't be read", "train again"]),
    "no weights": (lambda r: (r / "weights.safetensors").unlink(), ["weights.safetensors", "train again"]),
    "no held-out cells": (lambda r: (r / "held_out.h5ad").unlink(), ["held_out.h5ad", "train again"]),
    "truncated held-out cells": (lambda r: truncate(r / "held_out.h5ad"), ["held_out.h5ad", "train again"]),
}


@pytest.mark.parametrize("kind", BAD_RUNS)
def test_runs_that_can_not_be_exported(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make, fragments = BAD_RUNS[kind]
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    make(path)
    says(refused(capsys, "export", path, "--out", tmp_path / "models"), *fragments)
    assert {each.name for each in tmp_path.iterdir()} <= {"run"}


def test_a_run_without_reference_cells_can_not_be_exported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_write_graphs", lambda *_: {})  # they take seconds, and come first
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "reference.npz").unlink()
    says(refused(capsys, "export", tmp_path / "run", "--out", tmp_path / "models"), "reference.npz")
    assert {each.name for each in tmp_path.iterdir()} == {"run"}


# -- an environment that lacks something -------------------------------------------------------------------------------


def without_package(package: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process in which a package is not installed."""
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from causcell.cli.main import main
main({[str(word) for word in words]!r})
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def check_missing(done: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    says(done.stderr, *fragments)


@pytest.mark.parametrize("package", ["torch", "lightning", "safetensors"])
def test_training_without_its_packages_names_the_extra(folder: Path, tmp_path: Path, package: str) -> None:
    done = without_package(package, *train(folder / "good.h5ad", tmp_path / "run"))
    check_missing(done, f"{package!r}", "causcell[train]")


@pytest.mark.parametrize("package", ["onnx", "tritonclient"])
def test_export_without_its_packages_names_the_extra(run: Run, tmp_path: Path, package: str) -> None:
    done = without_package(package, "export", run.path, "--out", tmp_path / "models")
    check_missing(done, f"{package!r}", "causcell[export]")


def test_generation_without_a_runtime_names_the_extras(folder: Path, repository: Path, tmp_path: Path) -> None:
    done = without_package("onnxruntime", *generate(folder / "good.h5ad", repository, tmp_path / "atlas.zarr"))
    check_missing(done, "ONNX Runtime", "causcell[cpu] or causcell[gpu]")


def test_generation_needs_no_torch(folder: Path, repository: Path, tmp_path: Path) -> None:
    words = ["--do", "stim=IFN", "--where", "donor == 'd1'", "--json"]
    done = without_package("torch", *generate(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "atlas.zarr").is_dir()
