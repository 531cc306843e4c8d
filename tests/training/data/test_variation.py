"""Cells among which nothing varies, or little: told before training, or trained on soundly."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse
from short_runs import tiny_config
from simulation import replaced

from causcell.errors import DataError, GenePanelError
from causcell_training import fit
from causcell_training.data.cells import prepare
from causcell_training.data.components import principal_axes

LOG = {"expression": "log1p", "concept": ("stim",), "edge": ()}


def test_one_gene_is_named(cells: anndata.AnnData) -> None:
    with pytest.raises(GenePanelError, match=r"one gene, 'GENE0'.*two or more genes"):
        prepare(cells[:, :1].copy(), tiny_config())


def test_cells_that_are_all_the_same_are_told(cells: anndata.AnnData) -> None:
    with pytest.raises(DataError, match="same expression in each of the 60 panel genes"):
        prepare(replaced(cells, np.ones(cells.shape, dtype=np.float32)), tiny_config())


def test_a_panel_of_genes_that_nobody_expresses_is_told(cells: anndata.AnnData, tmp_path: Path) -> None:
    values = cells.X.toarray()
    values[:, 10:15] = 0
    (tmp_path / "genes.txt").write_text("\n".join(cells.var_names[10:15]))
    with pytest.raises(
        GenePanelError, match=r"288 training cells expresses any of the 5 panel genes \('GENE10'.*genes"
    ):
        prepare(replaced(cells, values), tiny_config(genes=str(tmp_path / "genes.txt")))


def few_directions(cells: anndata.AnnData, count: int) -> anndata.AnnData:
    """Log values in which ``count`` genes alone vary."""
    values = np.full(cells.shape, 0.5, dtype=np.float32)
    values[:, :count] = np.random.default_rng(0).random((cells.n_obs, count))
    return anndata.AnnData(sparse.csr_matrix(values), obs=cells.obs, var=cells.var)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_components_beyond_the_rank_are_zero_and_the_others_sound(cells: anndata.AnnData, count: int) -> None:
    data = prepare(few_directions(cells, count), tiny_config(**LOG))
    axes = principal_axes(data, 20, seed=0)
    assert np.isfinite(axes).all()
    assert (np.abs(axes).max(axis=0) > 0).sum() == count
    standardised = (
        data.expression[data.rows("train")].toarray() - data.preprocessing.mean
    ) / data.preprocessing.deviation
    deviation = (standardised @ axes)[:, :count].std(axis=0, ddof=1)
    assert deviation.mean() == pytest.approx(1, rel=1e-3)


def test_a_gene_that_varies_alone_is_trained_on(cells: anndata.AnnData, tmp_path: Path) -> None:
    run = fit(few_directions(cells, 1), tmp_path / "run", config=tiny_config(**LOG, **{"optimisation.epochs": 2}))
    assert np.isfinite(run.provenance["held_out"]["mse"])


def test_a_handful_of_cells_is_trained_on(cells: anndata.AnnData, tmp_path: Path) -> None:
    few = cells[:8].copy()
    config = tiny_config(concept=("stim",), edge=(), **{"optimisation.held_out": 0.4, "optimisation.epochs": 2})
    run = fit(few, tmp_path / "run", config=config)
    assert run.provenance["cells"]["train"] <= 6
