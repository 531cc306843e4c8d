"""Options that generation can't use: each is named by its flag, with the value and the remedy."""

from dataclasses import replace
from pathlib import Path

import pytest
from commands import generate_words, refused, says

from causcell.repository.manifest import Manifest


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
        (["--batch-size", "0"], ["--batch-size 0", "at least 1"]),
        (["--threads", "0"], ["threads", "0", "at least 1"]),
        (["--dtype", "int8"], ["dtype", "'int8'", "'float32', 'float16'"]),
        (["--expression", "cpm"], ["'cpm'", "'counts', 'log1p'"]),
        (["--layer", "spliced"], ["'spliced'", "layers are"]),
        (["--allow-missing-genes", "1.5"], ["--allow-missing-genes 1.5", "below 1"]),
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
    says(
        refused(capsys, *generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words)), *fragments
    )
    assert list(tmp_path.iterdir()) == []


def test_counts_for_a_model_of_log1p_values(
    folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How such values were normalised is not known: counts can't be brought to their scale."""
    as_trained = Manifest.preprocessing.fget
    assert as_trained is not None
    monkeypatch.setattr(Manifest, "preprocessing", property(lambda self: replace(as_trained(self), scale="log1p")))
    words = generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", "--expression", "counts")
    says(refused(capsys, *words), "trained on log1p", "give log1p values")
