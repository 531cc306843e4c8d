"""``causcell trial``: average effects, effects on cells, what can't be asked for, and flags that were renamed."""

import re
from pathlib import Path

import anndata
import pandas as pd
import pytest
from commands import run_command

from causcell.get import effects_df


def test_trial_writes_average_effects_and_effects_on_cells(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trial", data, "--models", made / "models", "--draws", "2", "--no-progress"]
    everything = ["--fdr", "0.99", "--min-effect", "0"]
    average = ["--concept", "stim", "--replicate", "donor", "--out", tmp_path / "average.h5ad", *everything]
    assert run_command(*words, *average) == 0
    out, _ = capsys.readouterr()
    assert "320 cells, 3 independent units (donor)" in out
    assert "ctrl against IFN: " in out
    assert re.search(r"ctrl against IFN: .* [+-]\d\.\d\d \[[+-]\d\.\d\d, [+-]\d\.\d\d\]", out)
    assert "intervals of 90% hold: the sampling of cells or draws, and the model's own error" in out
    assert "of the cells then have labels that no training cell carries" not in out
    average = anndata.read_h5ad(tmp_path / "average.h5ad")
    assert list(average.obs_names) == ["IFN", "ctrl"]
    where = ["--where", 'stim == "ctrl"']
    assert run_command(*words, "--do", "stim=IFN", *where, "--out", tmp_path / "cells.h5ad") == 0
    effects = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert (effects.obs["stim"] == "ctrl").all()
    assert effects.layers["deviation"].shape == effects.shape


def test_of_many_labels_those_of_the_strongest_effects_are_told(made, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("causcell.cli.trial._LABELS_SHOWN", 1)
    words = ["trial", data, "--models", made / "models", "--draws", "1", "--no-progress", "--concept", "cell_type"]
    assert run_command(*words, "--out", tmp_path / "trial.h5ad") == 0
    out, _ = capsys.readouterr()
    trial = anndata.read_h5ad(tmp_path / "trial.h5ad")
    strongest = trial.obs_names[abs(trial.layers["effect"]).sum(axis=1).argmax()]
    assert re.findall(r"^(\w+) against", out, re.MULTILINE) == [strongest]
    others = trial.n_obs - 2
    assert f"{others} other labels have weaker effects than these 1; the file written has all" in out


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_holds_the_genes_of_every_label(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, separator: str
) -> None:
    """With the column of the label also where it is only one."""
    table = tmp_path / f"genes{suffix}"
    words = ["trial", data, "--models", made / "models", "--draws", "1", "--no-progress", "--concept", "stim"]
    assert run_command(*words, "--out", tmp_path / "trial.h5ad", "--table", table) == 0
    trial = anndata.read_h5ad(tmp_path / "trial.h5ad")
    found = pd.read_csv(table, sep=separator)
    assert set(found.pop("group")) == {"ctrl"}
    pd.testing.assert_frame_equal(found, effects_df(trial), check_dtype=False)
    assert run_command(*words, "--out", tmp_path / "other.h5ad", "--table", table) == 2
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "other.h5ad").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --concept"),
        (["--concept", "stim", "--do", "stim=IFN"], "give either --concept"),
        (["--concept", "stim", "--keep-obs", "donor"], "--keep-obs and --keep-obsm belong to"),
        (["--do", "stim=IFN", "--baseline", "ctrl"], "--baseline and --replicate belong to --concept"),
        (["--concept", "stim", "--table", "genes.xlsx"], "--table genes.xlsx ends neither in .csv nor in .tsv"),
        (["--do", "stim=IFN", "--table", "genes.csv"], "--table belongs to --concept"),
        (["--concept", "dose"], "there is no concept 'dose'"),
        (["--concept", "stim", "--interval", "90"], "--interval 90.0 is no level of an interval"),
    ],
)
def test_trial_names_what_it_can_not_do(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_command("trial", data, "--models", made / "models", "--out", tmp_path / "out.h5ad", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()


def test_cells_in_combinations_never_trained_on_are_counted(
    repository: Path, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ["trial", tmp_path / "cells.h5ad", "--models", repository, "--concept", "cell_type", "--draws", 1]
    assert run_command(*words, "--out", tmp_path / "trial.h5ad", "--no-progress") == 0
    unseen = anndata.read_h5ad(tmp_path / "trial.h5ad").obs["unseen"].iloc[1:] * cells.n_obs
    assert unseen.max() > 0
    printed = re.findall(r"(\d+) of the cells then have labels", capsys.readouterr().out)
    assert list(map(int, printed)) == [round(each) for each in unseen if each > 0]


def test_flags_by_their_old_names_are_taken_with_a_warning(
    repository: Path, cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells[:20].write_h5ad(tmp_path / "cells.h5ad")
    words = ["trial", tmp_path / "cells.h5ad", "--models", repository, "--concept", "stim", "--draws", 1]
    words = [*words, "--no-progress", "--out"]
    assert run_command(*words, tmp_path / "old.h5ad", "--least", 0.2, "--rate", 0.1) == 0
    told = capsys.readouterr().err
    assert "warning: --least is deprecated; use --min-effect" in told
    assert "warning: --rate is deprecated; use --fdr" in told
    assert run_command(*words, tmp_path / "new.h5ad", "--min-effect", 0.2, "--fdr", 0.1) == 0
    assert capsys.readouterr().err == ""
    old, new = (anndata.read_h5ad(tmp_path / f"{name}.h5ad").uns["causcell"]["trial"] for name in ("old", "new"))
    assert (old["least"], old["rate"]) == (new["least"], new["rate"]) == (0.2, 0.1)
    assert run_command(*words, tmp_path / "both.h5ad", "--least", 0.2, "--min-effect", 0.2) == 2
    assert "--least is the old name of --min-effect" in capsys.readouterr().err


def test_old_flags_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("trial", "--help") == 0
    shown = capsys.readouterr().out
    assert "--min-effect" in shown
    assert "--fdr" in shown
    assert "--least" not in shown
    assert "--rate" not in shown
