"""What training reads and records of the cells' scale: totals, shares of genes, sums of the panel, raw, rounding."""

import json
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
from exported import export_unmeasured
from scipy import sparse
from short_runs import small_config
from simulation import counts, replaced

from causcell import Generator
from causcell.errors import CausCellError, ConfigurationError, DataError, ExpressionError
from causcell.preprocessing import SUM_QUANTILES
from causcell_training import Run, fit
from causcell_training.data.cells import TrainingData, prepare


def cut(cells: anndata.AnnData, prepared: TrainingData) -> anndata.AnnData:
    """Cells with the panel's genes alone, and the totals over all genes in a column."""
    panel = cells[:, list(prepared.preprocessing.genes)].copy()
    panel.obs["n_counts"] = np.asarray(cells.X.sum(axis=1)).ravel()
    return panel


def test_shares_are_the_mean_of_the_training_cells(cells: anndata.AnnData, prepared: TrainingData) -> None:
    train = counts(cells).astype(float)[prepared.rows("train")]
    expected = (train / train.sum(axis=1, keepdims=True)).mean(axis=0)
    shares = prepared.preprocessing.shares
    assert shares is not None
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("scale", ["counts", "log1p"])
def test_sums_are_quantiles_over_the_training_cells_of_expm1_over_the_panel(cells: anndata.AnnData, scale: str) -> None:
    raw = counts(cells)
    values = raw if scale == "counts" else np.log1p(raw / raw.sum(axis=1, keepdims=True) * 5000)
    data = prepare(replaced(cells, values), small_config(expression=scale))
    panel = np.expm1(data.expression.toarray()[data.rows("train")].astype(float)).sum(axis=1)
    np.testing.assert_allclose(data.preprocessing.panel_sums, np.quantile(panel, SUM_QUANTILES), rtol=1e-5)
    assert (data.preprocessing.shares is None) == (scale == "log1p")


def test_a_file_cut_to_the_panel_with_totals_of_a_column_trains_on_the_same_values(
    cells: anndata.AnnData, prepared: TrainingData
) -> None:
    """rtol 1e-6: the same totals and float32 arithmetic."""
    data = prepare(cut(cells, prepared), small_config(genes="all", totals="n_counts"))
    assert data.preprocessing.genes == prepared.preprocessing.genes
    np.testing.assert_allclose(data.expression.toarray(), prepared.expression.toarray(), rtol=1e-6)
    preprocessing = data.preprocessing
    assert (preprocessing.totals, preprocessing.normalisation_genes, preprocessing.shares) == ("n_counts", (), None)


def test_variable_genes_are_chosen_by_values_with_totals_of_the_column(
    cells: anndata.AnnData, prepared: TrainingData
) -> None:
    whole = cells.copy()
    whole.obs["n_counts"] = np.asarray(cells.X.sum(axis=1)).ravel()
    assert prepare(whole, small_config(totals="n_counts")).preprocessing.genes == prepared.preprocessing.genes


def test_totals_that_can_not_be_used_are_refused(cells: anndata.AnnData, prepared: TrainingData) -> None:
    panel = cut(cells, prepared)
    with pytest.raises(DataError, match=r"did you mean 'n_counts'\?"):
        prepare(panel, small_config(genes="all", totals="n_count"))
    panel.obs["n_counts"] /= 10
    with pytest.raises(ExpressionError, match="whose counts in the file sum to"):
        prepare(panel, small_config(genes="all", totals="n_counts"))
    with pytest.raises(ConfigurationError, match="totals='n_counts' is for counts"):
        prepare(panel, small_config(genes="all", totals="n_counts", expression="log1p"))


@pytest.mark.parametrize("form", ["memory", "h5ad"])
def test_counts_are_read_from_raw(cells: anndata.AnnData, prepared: TrainingData, tmp_path: Path, form: str) -> None:
    source = cells[:, :30].copy()
    source.X = sparse.csr_matrix(np.log1p(source.X.toarray() * 0.37))
    source.raw = cells
    if form == "h5ad":
        source.write_h5ad(tmp_path / "raw.h5ad")
    data = prepare(source if form == "memory" else tmp_path / "raw.h5ad", small_config(raw=True))
    np.testing.assert_array_equal(data.expression.toarray(), prepared.expression.toarray())
    with pytest.raises(ExpressionError, match=r"as log1p values are; give raw counts \(often in adata.raw, raw=True"):
        prepare(source, small_config())


def test_counts_that_are_not_whole_are_rounded(cells: anndata.AnnData, prepared: TrainingData) -> None:
    values = replaced(cells, counts(cells) * np.float32(1.0000001))
    with pytest.raises(ExpressionError, match=r"round them \(round_counts=True\)"):
        prepare(values, small_config())
    data = prepare(values, small_config(round_counts=True))
    np.testing.assert_array_equal(data.expression.toarray(), prepared.expression.toarray())
    np.testing.assert_array_equal(data.preprocessing.shares, prepared.preprocessing.shares)


def test_a_run_and_its_model_tell_what_they_know_of_the_scale(run: Run, repository: Path) -> None:
    """To four digits, as the files have it."""
    trained = run.model.preprocessing
    assert trained.shares is not None
    assert trained.panel_sums is not None
    with Generator.open(repository, threads=1) as generator:
        served = generator.preprocessing
    for read in (Run.load(run.path).model.preprocessing, served):
        np.testing.assert_allclose(read.shares, trained.shares, rtol=5e-4)
        np.testing.assert_allclose(read.panel_sums, trained.panel_sums, rtol=5e-4)


def test_a_run_of_an_earlier_version_is_opened(run: Run, tmp_path: Path) -> None:
    """It has none of the three."""
    (tmp_path / "run").mkdir()
    for file in run.path.iterdir():
        (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    place = tmp_path / "run" / "run.json"
    fields = json.loads(place.read_text())
    for name in ("shares", "panel_sums"):
        del fields[name]
    place.write_text(json.dumps(fields))
    old = Run.load(tmp_path / "run").model.preprocessing
    assert (old.totals, old.shares, old.panel_sums) == (None, None, None)


def test_a_model_trained_with_totals_of_a_column_asks_for_them_and_serves_the_same_values(
    cells: anndata.AnnData, prepared: TrainingData, tmp_path: Path
) -> None:
    panel = cut(cells, prepared)
    config = small_config(genes="all", **{"optimisation.epochs": 1})
    trained = fit(panel, tmp_path / "run", config=config, totals="n_counts")
    assert trained.config.totals == "n_counts"
    with Generator.open(export_unmeasured(trained, tmp_path / "models"), threads=1, batch_size=64) as generator:
        with pytest.raises(CausCellError, match=r"give such a column \(totals='n_counts'\)"):
            generator.embed(cells)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one = generator.embed(panel, totals="n_counts")
            cells = cells.copy()
            cells.obs["n_counts"] = panel.obs["n_counts"]
            other = generator.embed(cells, totals="n_counts")
        np.testing.assert_array_equal(one.obsm["X_causcell"], other.obsm["X_causcell"])
