"""Counts from the command line, and the field's scorer on them by its own command."""

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import SMALL_MODEL, generated, refused, run_command, says

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def test_generate_stores_counts(data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole numbers, int32, with the library sizes that they were made for."""
    atlas = generated(data, made, tmp_path / "own.zarr", "--grid", "stim", "--store", "counts")
    assert atlas.X.dtype == np.int32
    real = np.asarray(anndata.read_h5ad(data).X.sum(axis=1), dtype=np.float64).ravel()
    np.testing.assert_array_equal(atlas.obs["library_size"], np.repeat(real, 2))
    words = ["--store", "counts", "--library-size", "5000"]
    assert set(generated(data, made, tmp_path / "fixed.zarr", *words).obs["library_size"]) == {5000.0}
    capsys.readouterr()
    assert run_command("verify", tmp_path / "fixed.zarr") == 0
    words = ["generate", data, "--models", made / "models", "--out", tmp_path / "plan.zarr", "--store", "counts"]
    assert run_command(*words, "--plan") == 0
    assert "counts (sample), int32" in capsys.readouterr().out


def test_what_has_no_counts(data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of the command line."""
    words = ["generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr"]
    message = refused(capsys, *words, "--store", "counts", "--preset", "mean")
    says(message, "solver 'mean' does not draw its result", "(--solver draw)", "(--store expression)")
    message = refused(capsys, *words, "--library-size", "100")
    says(message, "--library-size 100 is the total that counts are made for (--store counts)")
    message = refused(capsys, *words, "--store", "counts", "--dtype", "float16")
    says(message, "--dtype float16 is a type of expression")
    assert not (tmp_path / "atlas.zarr").exists()


@pytest.mark.scorer
def test_the_fields_scorer_takes_counts_and_real_cells_as_they_are(data: Path, tmp_path: Path) -> None:
    """Both files unmodified, by the scorer's own command: its genes are the file's, so the model has them all."""
    pytest.importorskip("cell_eval2", reason="takes causcell[scorer]: the field's scorer, cell-eval2")
    import polars

    concepts = ["--concept", "stim", "--concept", "cell_type"]
    train = ["train", data, "--out", tmp_path / "run", *concepts, "--genes", "all", *SMALL_MODEL]
    assert run_command(*train, "--no-progress") == 0
    assert run_command("export", tmp_path / "run", "--out", tmp_path / "models") == 0
    ask = ["--where", "stim == 'ctrl'", "--grid", "stim", "--store", "counts", "--no-progress"]
    predicted = tmp_path / "predicted.h5ad"
    assert run_command("generate", data, "--models", tmp_path / "models", *ask, "--out", predicted) == 0
    command = [Path(sys.executable).parent / "cell-eval2", "run", "--adata-pred", predicted, "--adata-real", data]
    command += ["--preset", "vcc2026", "--pert-col", "stim", "--control", "ctrl", "--no-target-genes"]
    done = subprocess.run([*command, "--outdir", tmp_path / "scores"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = polars.read_csv(tmp_path / "scores" / "results.csv")
    assert set(found["perturbation"]) == {"IFN"}
    assert {"expr_mse_unbiased", "de_wilcoxon_sig_jaccard"} <= set(found["metric"])
