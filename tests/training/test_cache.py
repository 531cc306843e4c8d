"""Training from several files and from a cache on disk: the model is that of the same cells in memory, bit for bit."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from short_runs import assert_same_weights, short_config, tiny_config

from causcell.errors import ConfigurationError
from causcell_training import Run, fit
from causcell_training.data.cells import prepare
from causcell_training.data.panel_rows import PanelCache, PanelFile


def test_the_model_is_the_same_from_disk(cells: anndata.AnnData, finished: Run, tmp_path: Path) -> None:
    run = fit(cells, tmp_path / "run", config=short_config(), cache="disk")
    assert_same_weights(run, finished)
    for name in ("reference.npz", "held_out.h5ad", "split.csv"):
        assert (run.path / name).read_bytes() == (finished.path / name).read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_run_goes_on_with_another_cache(
    cells: anndata.AnnData, finished: Run, interrupted: Path, tmp_path: Path
) -> None:
    run = fit(cells, interrupted, config=short_config(), cache=tmp_path, resume=True)
    assert_same_weights(run, finished)


def test_prepared_data_are_the_same_from_disk(cells: anndata.AnnData, tmp_path: Path) -> None:
    memory = prepare(cells, tiny_config(genes=30))
    disk = prepare(cells, tiny_config(genes=30), cache=PanelCache(tmp_path, 0))
    assert isinstance(disk.expression, PanelFile)
    assert disk.digest() == memory.digest()
    rows = np.array([5, 3, 200, 201, 202])
    for one, other in zip(disk.batch(rows), memory.batch(rows), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), strict=True)


def test_statistics_are_those_of_the_whole_matrix(cells: anndata.AnnData) -> None:
    """Bit for bit what scipy computes from all training cells at once, as earlier versions did."""
    data = prepare(cells, tiny_config())
    whole = data.expression[data.rows("train")]
    mean = np.asarray(whole.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(whole.astype(np.float64).power(2).mean(axis=0)).ravel()
    np.testing.assert_array_equal(data.preprocessing.mean, mean.astype(np.float32))
    deviation = np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
    np.testing.assert_array_equal(data.preprocessing.deviation, np.maximum(deviation, np.float32(0.1)))
    sums = np.asarray(whole.expm1().sum(axis=1, dtype=np.float64))
    assert data.preprocessing.panel_sums is not None
    np.testing.assert_array_equal(data.preprocessing.panel_sums[[0, -1]], [sums.min(), sums.max()])


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_several_files_train_as_their_concatenation(cells: anndata.AnnData, tmp_path: Path, form: str) -> None:
    parts = {"a": cells[:150].copy(), "b": cells[150:, ::-1].copy()}
    files = {}
    for key, part in parts.items():
        files[key] = tmp_path / f"{key}.{form}"
        getattr(part, "write_h5ad" if form == "h5ad" else "write_zarr")(files[key])
    whole = cells.copy()
    whole.obs_names = [f"{'a' if i < 150 else 'b'}:{name}" for i, name in enumerate(cells.obs_names)]
    settings = tiny_config(genes=40, gene_selection="variance_labels", optimisation__epochs=2)
    assert_same_weights(
        fit(files, tmp_path / "joined", config=settings), fit(whole, tmp_path / "whole", config=settings)
    )


def test_a_run_learns_further_from_several_files_and_from_disk(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    new = cells.copy()
    new.obs_names = [f"new_{name}" for name in cells.obs_names]
    parts = {"a": new[:100].copy(), "b": new[100:].copy()}
    new.obs_names = [f"{'a' if i < 100 else 'b'}:{name}" for i, name in enumerate(new.obs_names)]
    runs = [
        fit(data, tmp_path / name, start_from=finished, cache=cache)
        for name, data, cache in (("parts", parts, "disk"), ("whole", new, "memory"))
    ]
    assert_same_weights(*runs)


def test_a_cache_that_is_nothing_is_told_before_anything_is_made(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cache='no'"):
        fit(cells, tmp_path / "run", config=tiny_config(), cache="no")
    assert not any(tmp_path.iterdir())
