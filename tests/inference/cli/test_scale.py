"""``--totals``, ``--raw`` and ``--round`` on every command that reads cells, and scales that are wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import SMALL_MODEL, embed_words, generate_words, refused, run_command, says, train_words
from scipy import sparse

from causcell.repository.folder import open_repository

Words = Callable[[Path, Path, Path], list[object]]

COMMANDS: dict[str, Words] = {
    "train": lambda data, models, out: train_words(data, out / "run"),
    "benchmark": lambda data, models, out: ["benchmark", data, "--out", out / "report", "--concept", "stim"],
    "embed": lambda data, models, out: embed_words(data, models, out / "embedded.h5ad"),
    "generate": lambda data, models, out: generate_words(data, models, out / "atlas.zarr"),
    "trial": lambda data, models, out: [
        *("trial", data, "--models", models, "--out", out / "trial.h5ad", "--concept", "stim", "--no-progress")
    ],
    "evaluate": lambda data, models, out: ["evaluate", data, "--models", models, "--out", out / "report"],
}
EVERY_COMMAND = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(scope="module")
def files(cells: anndata.AnnData, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 60 cells as whole counts, cut to the panel, in raw, nearly whole, and for another total."""
    folder = tmp_path_factory.mktemp("scales")
    whole = cells[:60].copy()
    whole.obs_names = [f"new_{name}" for name in whole.obs_names]  # cells that no model was trained on
    sums = np.asarray(whole.X.sum(axis=1)).ravel()
    whole.obs["n_counts"] = sums
    whole.write_h5ad(folder / "whole.h5ad")
    whole[:, list(open_repository(repository).manifest.genes.names)].write_h5ad(folder / "cut.h5ad")
    counts = whole.X.toarray()
    other = whole.copy()
    other.X = sparse.csr_matrix(np.log1p(counts / sums[:, None] * 1e6).astype(np.float32))
    other.raw = whole
    other.write_h5ad(folder / "raw.h5ad")
    nearly = whole.copy()
    nearly.X = sparse.csr_matrix(counts * np.float32(1.0000001))
    nearly.write_h5ad(folder / "nearly.h5ad")
    return folder


@EVERY_COMMAND
def test_a_column_of_totals_that_is_not_there_is_told_with_the_nearest(
    command: str, files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*COMMANDS[command](files / "whole.h5ad", repository, tmp_path), "--totals", "n_count"]
    message = refused(capsys, *words) if command != "benchmark" else _last_error(capsys, *words)
    says(message, "--totals n_count is no column of obs", "did you mean 'n_counts'?")


@EVERY_COMMAND
def test_raw_that_is_not_there_is_told(
    command: str, files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*COMMANDS[command](files / "whole.h5ad", repository, tmp_path), "--raw"]
    message = refused(capsys, *words) if command != "benchmark" else _last_error(capsys, *words)
    says(message, "there is no adata.raw; leave out --raw")


@EVERY_COMMAND
def test_counts_nearly_whole_are_told_to_be_rounded(
    command: str, files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = COMMANDS[command](files / "nearly.h5ad", repository, tmp_path)
    message = refused(capsys, *words) if command != "benchmark" else _last_error(capsys, *words)
    says(message, "whole but for", "round them (--round)")


def _last_error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The message of a command that has told of something else before."""
    assert run_command(*words) == 2
    err = capsys.readouterr().err.splitlines()
    return next(line for line in err if line.startswith("error: "))


@pytest.mark.parametrize(
    ("file", "flags"),
    [("cut", ["--totals", "n_counts"]), ("raw", ["--raw"]), ("nearly", ["--round"])],
    ids=["--totals", "--raw", "--round"],
)
def test_the_same_counts_in_other_files_give_the_same_embeddings(
    files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, flags: list[str]
) -> None:
    """rtol 1e-5: of rounded counts nothing differs, of totals the last bit of a float32 may."""
    for name, words in (("whole", []), (file, flags)):
        assert run_command(*embed_words(files / f"{name}.h5ad", repository, tmp_path / f"{name}.h5ad", *words)) == 0
    assert capsys.readouterr().err == ""
    one, other = (anndata.read_h5ad(tmp_path / f"{name}.h5ad").obsm["X_causcell"] for name in ("whole", file))
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_a_file_cut_to_the_panel_is_told_of_the_column_that_it_has(
    files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = embed_words(files / "cut.h5ad", repository, tmp_path / "cut.h5ad")
    says(refused(capsys, *words), "--totals n_counts", "of it in training cells", "--allow-missing-genes")


def test_values_for_another_total_are_told_of_it(
    files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = embed_words(files / "raw.h5ad", repository, tmp_path / "x.h5ad", "--expression", "log1p")
    says(refused(capsys, *words), "natural logarithms for a total of 1,000,000 a cell", "needs 10,000")


def test_an_atlas_goes_on_with_the_same_totals_alone(
    files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers read the column too; what is recorded are the totals that were asked for."""
    words = generate_words(files / "cut.h5ad", repository, tmp_path / "atlas.zarr", "--shard-size", "4kB")
    words += ["--chunk-size", "1kB", "--workers", "2"]
    assert run_command(*words, "--totals", "n_counts") == 0
    plan = json.loads((tmp_path / "atlas.zarr" / ".causcell" / "plan.json").read_text())
    assert (plan["plan"]["source"]["totals"], plan["origin"]["totals"]) == ("n_counts", "n_counts")
    assert run_command(*words, "--totals", "n_counts") == 0
    capsys.readouterr()
    message = _last_error(capsys, *words, "--allow-missing-genes", "0.9")
    says(message, "source totals ('n_counts' there, None asked for)")


def test_training_records_how_it_read(data: Path, files: Path, tmp_path: Path) -> None:
    words = train_words(files / "cut.h5ad", tmp_path / "run", "--totals", "n_counts", "--round", *SMALL_MODEL)
    assert run_command(*words) == 0
    fields = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (fields["totals"], fields["normalisation_genes"]) == ("n_counts", [])
    assert "shares" not in fields
    assert fields["config"]["totals"] == "n_counts"
    assert (fields["config"]["round_counts"], fields["config"]["raw"]) == (True, False)
