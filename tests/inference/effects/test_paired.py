"""Tests of counterfactual cells in pairs: against scipy and scanpy, over replicates, from every form, in bounds."""

import tracemalloc
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from causcell.effects import paired, paired_tests, pairs
from causcell.errors import ConceptError, ConfigurationError, DataError, UnknownConceptError, UnknownLabelError

CELLS, GENES = 90, 40


def made_results(cells: int = CELLS, genes: int = GENES, draws: int = 1) -> anndata.AnnData:
    """Sparse log expression of factual cells and of two interventions; gene 0 is absent, genes 1 to 5 are raised."""
    rng = np.random.default_rng(0)
    own = rng.gamma(1.0, 1.0, (cells, 1, 1, genes)) * (rng.random((cells, 1, 1, genes)) < 0.6)
    x = np.repeat(np.repeat(own, 3, axis=1), draws, axis=2)
    x += rng.gamma(1.0, 0.2, x.shape) * (rng.random(x.shape) < 0.3)
    x[:, 1:, :, 1:6] += 0.3
    x[..., 0] = 0
    obs = pd.DataFrame(index=[f"row {i}" for i in range(cells * 3 * draws)])
    obs["source_cell"] = pd.Categorical(np.repeat([f"cell {i}" for i in range(cells)], 3 * draws))
    obs["intervention"] = pd.Categorical(
        np.tile(np.repeat(["factual", "stim=IFN", "stim=LPS"], draws), cells),
        categories=["factual", "stim=IFN", "stim=LPS"],
    )
    obs["draw"] = np.tile(np.arange(draws), cells * 3)
    obs["donor"] = np.repeat([f"donor {i % 7}" for i in range(cells)], 3 * draws)
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(genes)]}, index=[f"gene {i}" for i in range(genes)])
    return anndata.AnnData(x.reshape(-1, genes).astype(np.float32), obs=obs, var=var)


@pytest.fixture(scope="module")
def results() -> anndata.AnnData:
    return made_results()


def arms_of(results: anndata.AnnData) -> np.ndarray:
    """[cells x interventions x G], means over draws."""
    draws = results.obs["draw"].nunique()
    return np.asarray(results.X, dtype=np.float64).reshape(-1, 3, draws, results.n_vars).mean(axis=2)


def by_gene(table: pd.DataFrame, results: anndata.AnnData) -> pd.DataFrame:
    return table.set_index("names").loc[results.var_names]


def test_in_pairs_it_is_scipy_s_test_of_each_gene(results: anndata.AnnData) -> None:
    arms = arms_of(results)
    difference = arms[:, 1] - arms[:, 0]
    for draws in (1, 2):
        some = made_results(draws=draws)
        arms = arms_of(some)
        difference = arms[:, 1] - arms[:, 0]
        ranks = by_gene(paired_tests(some, "stim=IFN"), some)
        for gene in range(1, GENES):
            expected = stats.wilcoxon(difference[:, gene], method="approx")
            np.testing.assert_allclose(ranks["pvals"].iloc[gene], expected.pvalue, rtol=1e-9)
            np.testing.assert_allclose(abs(ranks["scores"].iloc[gene]), -expected.zstatistic, rtol=1e-9)
        t = by_gene(paired_tests(some, "stim=IFN", method="t-test"), some)
        expected = stats.ttest_rel(arms[:, 1, 1:], arms[:, 0, 1:])
        np.testing.assert_allclose(t["scores"].iloc[1:], expected.statistic, rtol=1e-6)
        np.testing.assert_allclose(t["pvals"].iloc[1:], expected.pvalue, rtol=1e-6)
        for table in (ranks, t):
            np.testing.assert_allclose(table["effect"], difference.mean(axis=0), atol=1e-12)
            np.testing.assert_array_equal(table.iloc[0][["scores", "pvals", "effect"]].astype(float), [0, 1, 0])
            np.testing.assert_allclose(table["pvals_adj"], stats.false_discovery_control(table["pvals"]))
            assert (table["pairs"] == CELLS).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning:scanpy")  # of the gene that is absent
@pytest.mark.parametrize("method", ["wilcoxon", "t-test"])
def test_as_two_groups_it_is_scanpy_s_test_of_the_same_rows(results: anndata.AnnData, method: str) -> None:
    scanpy = pytest.importorskip("scanpy", reason="takes causcell[evaluate]")
    same = results.copy()
    scanpy.tl.rank_genes_groups(
        same, "intervention", reference="factual", method=method, tie_correct=method == "wilcoxon"
    )
    expected = by_gene(scanpy.get.rank_genes_groups_df(same, "stim=IFN"), results)
    found = by_gene(paired_tests(results, "stim=IFN", method=method), results)
    np.testing.assert_allclose(found["scores_unpaired"], expected["scores"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["pvals_unpaired"], expected["pvals"], rtol=1e-4)
    np.testing.assert_allclose(found["pvals_adj_unpaired"], expected["pvals_adj"], rtol=1e-4)
    np.testing.assert_allclose(found["logfoldchanges"], expected["logfoldchanges"], rtol=1e-4, atol=1e-5)


def test_cells_as_their_own_controls_show_what_groups_hide(results: anndata.AnnData) -> None:
    """A rise of 0.3 in every cell, whose own expression varies by about 1."""
    table = by_gene(paired_tests(results, "stim=IFN"), results)
    assert (table["pvals"].iloc[1:6] < 1e-10).all()
    assert (table["pvals_unpaired"].iloc[1:6] > 1e-10).all()


@pytest.mark.parametrize("method", ["wilcoxon", "t-test"])
def test_replicates_are_the_units_of_both_tests(results: anndata.AnnData, method: str) -> None:
    table = by_gene(paired_tests(results, "stim=IFN", method=method, replicate="donor"), results)
    arms = arms_of(results)
    donor = np.arange(CELLS) % 7
    means = np.stack([arms[donor == each].mean(axis=0) for each in range(7)])
    factual, counterfactual = means[:, 0, 1:], means[:, 1, 1:]
    if method == "wilcoxon":
        expected = stats.wilcoxon(counterfactual, factual, axis=0, method="exact")
        two = stats.mannwhitneyu(counterfactual, factual, axis=0, method="exact")
    else:
        expected = stats.ttest_rel(counterfactual, factual)
        two = stats.ttest_ind(counterfactual, factual, equal_var=False)
    np.testing.assert_allclose(table["pvals"].iloc[1:], expected.pvalue, rtol=1e-6)
    np.testing.assert_allclose(table["pvals_unpaired"].iloc[1:], two.pvalue, rtol=1e-6)
    np.testing.assert_allclose(table["effect"].iloc[1:], (counterfactual - factual).mean(axis=0), atol=1e-12)
    assert (table["pairs"] == 7).all()


def test_several_interventions_are_groups_of_one_table(results: anndata.AnnData) -> None:
    both = paired_tests(results, pval_cutoff=0.01, gene_symbols="symbol")
    assert both["group"].dtype == pd.CategoricalDtype(["stim=IFN", "stim=LPS"])
    assert (both["pvals_adj"] < 0.01).all()
    assert (both["symbol"] == "S" + both["names"].str.removeprefix("gene ")).all()
    one = paired_tests(results, ["stim=LPS"], pval_cutoff=0.01, gene_symbols="symbol")
    pd.testing.assert_frame_equal(one, both[both["group"] == "stim=LPS"].drop(columns="group").reset_index(drop=True))


@pytest.mark.parametrize("method", ["wilcoxon", "t-test"])
@pytest.mark.parametrize("replicate", [None, "donor"])
def test_every_form_gives_the_same_table(
    results: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, replicate: str | None
) -> None:
    """Rows in any order, dense, by rows, by columns, of a file, lazy; a few cells and genes at once."""
    expected = paired_tests(results, method=method, replicate=replicate)
    monkeypatch.setattr(pairs, "_READ", 8 * GENES * 30)
    monkeypatch.setattr(paired, "_MEMORY", paired._PER_VALUE * CELLS * 7)
    by_rows = results.copy()
    by_rows.X = sparse.csr_matrix(results.X)
    by_columns = results.copy()
    by_columns.X = sparse.csc_matrix(results.X)
    in_a_layer = results.copy()
    in_a_layer.layers["log"], in_a_layer.X = results.X, np.zeros(results.shape, dtype=np.int32)
    by_rows.write_h5ad(tmp_path / "csr.h5ad")
    results.write_h5ad(tmp_path / "dense.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of changes in what anndata and zarr write
        by_rows.write_zarr(tmp_path / "csr.zarr")
    forms = {
        "dense": (results, None),
        "by rows": (by_rows, None),
        "by columns": (by_columns, None),
        "a view": (results[np.arange(results.n_obs)], None),
        "a layer": (in_a_layer, "log"),
        "dense on disk": (anndata.read_h5ad(tmp_path / "dense.h5ad", backed="r"), None),
        "by rows on disk": (anndata.read_h5ad(tmp_path / "csr.h5ad", backed="r"), None),
        "zarr": (anndata.read_zarr(tmp_path / "csr.zarr"), None),
    }
    for name, (form, layer) in forms.items():
        found = paired_tests(form, method=method, replicate=replicate, layer=layer)
        pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-9, obj=name)
    shuffled = results[np.random.default_rng(1).permutation(results.n_obs)].copy()
    found = paired_tests(shuffled, ["stim=IFN", "stim=LPS"], method=method, replicate=replicate)
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-9)


def test_lazy_results_are_tested(results: anndata.AnnData, tmp_path: Path) -> None:
    pytest.importorskip("xarray", reason="read_lazy takes xarray")
    results.write_h5ad(tmp_path / "results.h5ad")
    lazy = anndata.experimental.read_lazy(tmp_path / "results.h5ad")
    pd.testing.assert_frame_equal(paired_tests(lazy, method="t-test"), paired_tests(results, method="t-test"))


def test_a_part_of_the_rows_is_tested_by_itself(results: anndata.AnnData) -> None:
    half = results[results.obs["source_cell"].cat.codes % 2 == 0]
    assert (paired_tests(half)["pairs"] == CELLS // 2).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wilcoxon", "t-test"])
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Eight megabytes for 6,000 cells x 200 genes, whose arms take 19 MB as float64; less than three times that."""
    cells, genes = 6000, 200
    results = made_results(cells, genes)
    results.X = sparse.csr_matrix(results.X)
    monkeypatch.setattr(pairs, "_READ", 2**21)
    monkeypatch.setattr(paired, "_MEMORY", 2**23)
    paired_tests(results[:300], method=method)  # what is imported and kept
    tracemalloc.start()
    paired_tests(results, "stim=IFN", method=method)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 2**23


def test_what_can_not_be_tested_is_refused(results: anndata.AnnData) -> None:
    counts = results.copy()
    counts.X = np.ones(results.shape, dtype=np.int32)
    effects = results.copy()
    effects.uns["causcell"] = {"store": "effects"}
    absent = results[results.obs["intervention"] != "factual"]
    lacking = results[1:]
    broken = results.copy()
    broken.X[4, 5] = np.nan
    unnamed = results.copy()
    unnamed.obs["donor"] = [None, *unnamed.obs["donor"].iloc[1:]]
    nothing = anndata.AnnData(obs=results.obs, var=results.var)
    for given, options, error, message in [
        (counts, {}, ConfigurationError, r"X holds whole numbers \(int32\).*log1p of counts per 10,000"),
        (effects, {}, ConfigurationError, "X holds effects"),
        (absent, {}, ConfigurationError, r"pairs take the factual cells and an intervention.*do=\[{}, "),
        (lacking, {}, ConfigurationError, "1 of 90 cells under stim=IFN have no factual row.*'cell 0'"),
        (broken, {}, DataError, "values that are not finite"),
        (nothing, {}, ConfigurationError, "hold no expression"),
        (results, {"intervention": "stim=ifn"}, UnknownLabelError, "did you mean 'stim=IFN'"),
        (results, {"method": "ttest"}, ConfigurationError, "method 'ttest' is not known; did you mean 't-test'"),
        (results, {"layer": "log"}, ConfigurationError, "layer='log' is not in the results"),
        (results, {"replicate": "donors"}, UnknownConceptError, "did you mean 'donor'"),
        (unnamed, {"replicate": "donor"}, ConceptError, "missing for 1 cells"),
        (results[:3], {}, DataError, "at least 2"),
        (results[:, :0], {}, DataError, "no genes"),
        (anndata.AnnData(np.ones((2, 2))), {}, ConfigurationError, "no column 'source_cell'"),
    ]:
        with pytest.raises(error, match=message):
            paired_tests(given, **options)
