"""``causcell embed``: embeddings and predicted labels, of all cells or some."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import embed_words, refused, run_command, says

from causcell.generator import Generator


def test_embed_writes_embeddings_and_predicted_labels(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / "embedded.h5ad"
    assert run_command("embed", data, "--models", made / "models", "--out", out, "--no-progress") == 0
    stdout, err = capsys.readouterr()
    assert f"320 cells embedded: {out}" in stdout
    assert err == ""
    written = anndata.read_h5ad(out)
    with Generator.open(made / "models") as generator:
        expected = generator.embed(data)
    assert written.obs_names.tolist() == expected.obs_names.tolist()
    assert set(written.obsm) == set(expected.obsm)
    for name in expected.obsm:
        np.testing.assert_array_equal(written.obsm[name], expected.obsm[name])
    for name in ("stim", "cell_type", "state"):
        column = f"{name}_predicted"
        assert written.obs[column].astype(str).tolist() == expected.obs[column].astype(str).tolist()


def test_embed_takes_some_of_the_cells(data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData) -> None:
    words = ["--models", made / "models", "--out", tmp_path / "some.h5ad", "--where", 'donor == "d2"']
    assert run_command("embed", data, *words, "--batch-size", "16", "--threads", "1", "--no-progress") == 0
    written = anndata.read_h5ad(tmp_path / "some.h5ad")
    assert written.obs_names.tolist() == cells.obs_names[cells.obs["donor"] == "d2"].tolist()


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--where", "stim"], ["--where stim ", "yes or no"]),
        (["--layer", "spliced"], ["'spliced'", "there are none"]),
        (["--batch-size", "-1"], ["--batch-size -1", "at least 1"]),
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
    says(
        refused(capsys, *embed_words(folder / "good.h5ad", repository, tmp_path / "embedded.h5ad", *words)), *fragments
    )
    assert list(tmp_path.iterdir()) == []
