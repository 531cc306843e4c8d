"""Totals of cells: from a column of obs, over a part of the genes, and by the share that missing genes carry."""

import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scales import GENES, PANEL, draw_counts, normalised, trained_on
from scipy import sparse

from causcell.cells.collection import open_cells
from causcell.cells.panel import PanelReader
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import Concept, ConceptSchema
from causcell.errors import CausCellWarning, ConfigurationError, DataError, ExpressionError, GenePanelError
from causcell.preprocessing import Preprocessing

COUNTS = draw_counts()
MODEL = trained_on(COUNTS)
EXPECTED = normalised(COUNTS)[:, : len(PANEL)]
SCHEMA = ConceptSchema((Concept("stim", ("ctrl", "IFN")),), ())
EVERY = slice(0, len(COUNTS))


def make_cells(genes: tuple[str, ...] = GENES, counts: np.ndarray = COUNTS, **columns: object) -> anndata.AnnData:
    """Cells of some genes, with the totals over all of them in ``n_counts`` unless another column is given."""
    obs = pd.DataFrame(columns or {"n_counts": counts.sum(axis=1)}, index=[f"cell{i}" for i in range(len(counts))])
    obs["stim"] = "ctrl"
    values = sparse.csr_matrix(counts[:, [GENES.index(gene) for gene in genes]].astype(np.float32))
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes)))


def bind(cells: anndata.AnnData, model: Preprocessing = MODEL, **options: object) -> PanelCells:
    return PanelCells(open_cells(cells), SCHEMA, model, **options)


def read(cells: anndata.AnnData, model: Preprocessing = MODEL, **options: object) -> np.ndarray:
    return bind(cells, model, **options).read(EVERY).expression


# -- from a column -----------------------------------------------------------------------------------------------------


def test_a_file_cut_to_the_panel_gives_the_values_of_the_whole_file_with_totals_from_a_column() -> None:
    """rtol 1e-6: totals are the same numbers, and what follows the same float32 arithmetic."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = read(make_cells(PANEL), totals="n_counts")
        np.testing.assert_allclose(cut, read(make_cells()), rtol=1e-6)
    np.testing.assert_allclose(cut, EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64", "Int64"])
def test_the_type_of_the_column_makes_no_difference(dtype: str) -> None:
    cells = make_cells(PANEL)
    cells.obs["n_counts"] = cells.obs["n_counts"].astype(int).astype(dtype)
    np.testing.assert_allclose(read(cells, totals="n_counts"), EXPECTED, rtol=1e-6)


def test_totals_go_with_their_cells_by_a_query_and_over_several_files() -> None:
    cells = make_cells(PANEL)
    cells.obs["odd"] = np.arange(len(COUNTS)) % 2 == 1
    opened = open_cells({"a": cells[:30].copy(), "b": cells[30:].copy()}, where="odd")
    bound = PanelCells(opened, SCHEMA, MODEL, totals="n_counts")
    np.testing.assert_allclose(bound.read(slice(3, 40)).expression, EXPECTED[1::2][3:40], rtol=1e-6)


def test_a_column_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"totals='n_count' is no column of obs; did you mean 'n_counts'\?"):
        bind(make_cells(PANEL), totals="n_count")


def test_a_column_of_text_holds_no_totals() -> None:
    with pytest.raises(DataError, match=r"totals='stim' has values of type .*, and totals are numbers"):
        bind(make_cells(PANEL), totals="stim")


@pytest.mark.parametrize(("bad", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (0, "0"), (-3, "-3")])
def test_totals_are_positive_and_finite(bad: float, shown: str) -> None:
    cells = make_cells(PANEL)
    cells.obs.loc["cell7", "n_counts"] = bad
    with pytest.raises(ExpressionError, match=rf"totals='n_counts' holds {shown} for cell 'cell7', the first of 1"):
        bind(cells, totals="n_counts")


def test_a_total_below_the_counts_in_the_file_is_refused_by_cell() -> None:
    cells = make_cells(PANEL)
    sums = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.obs.loc["cell7", "n_counts"] = sums[7] * 0.99
    with pytest.raises(ExpressionError, match=r"for cell 'cell7', whose counts in the file sum to .* already"):
        read(cells, totals="n_counts")
    cells.obs["n_counts"] = (sums * (1 + 1e-4)).astype(np.float32)  # rounding of a column is none of that
    with pytest.warns(CausCellWarning, match=r"'n_counts' may count other genes"):
        read(cells, totals="n_counts")


def test_a_column_that_counts_other_genes_is_refused_where_the_file_has_all_of_the_models() -> None:
    """The sums are known then, and the column is not them."""
    cells = make_cells()
    np.testing.assert_allclose(read(cells, totals="n_counts"), EXPECTED, rtol=1e-6)
    cells.obs["n_counts"] *= 1.2
    with pytest.raises(ExpressionError, match=r"all of which the file has, sum to .*; leave totals= out"):
        read(cells, totals="n_counts")


def test_totals_are_for_counts() -> None:
    with pytest.raises(ConfigurationError, match=r"totals='n_counts' is for counts, and expression='log1p' is read"):
        bind(make_cells(PANEL), expression="log1p", totals="n_counts")


# -- a model that was trained with totals of a column ------------------------------------------------------------------


def test_a_model_of_a_columns_totals_needs_a_column() -> None:
    """Which genes the column counted in training is not known: a file with many genes is no file with all of them."""
    model = trained_on(COUNTS, totals="n_counts")
    with pytest.raises(ConfigurationError, match=r"trained with totals from the column 'n_counts'.*totals='n_counts'"):
        bind(make_cells(), model)
    for genes in (PANEL, GENES):
        np.testing.assert_allclose(read(make_cells(genes), model, totals="n_counts"), EXPECTED, rtol=1e-6)


def test_a_model_of_a_columns_totals_takes_log1p_values_up_to_its_total() -> None:
    model = trained_on(COUNTS, totals="n_counts")
    values = make_cells(PANEL)
    values.X = sparse.csr_matrix(EXPECTED)
    np.testing.assert_array_equal(read(values, model, expression="log1p"), EXPECTED)
    values.X = sparse.csr_matrix(normalised(COUNTS, 1e6)[:, : len(PANEL)])
    with pytest.raises(ExpressionError, match=r"over the 20 panel genes in the file, and this model needs at most"):
        read(values, model, expression="log1p")


# -- genes of the total that are missing -------------------------------------------------------------------------------


def missing_share(genes: tuple[str, ...]) -> float:
    return float(MODEL.shares[[gene not in genes for gene in GENES]].sum())


def test_missing_genes_are_told_by_the_share_that_they_carry_and_a_column_is_the_first_remedy() -> None:
    share = missing_share(PANEL)
    with pytest.raises(GenePanelError) as caught:
        bind(make_cells(PANEL))
    message = str(caught.value)
    assert f"40 of 60 genes that a cell's total is taken over are missing, which carry {share:.0%} of it" in message
    column, allowed = (message.index(part) for part in ("totals='n_counts'", "allow_missing_genes="))
    assert column < allowed


def test_the_remedy_names_a_column_that_the_file_has() -> None:
    with pytest.raises(GenePanelError, match=r"totals from a column of obs \(totals='total_counts'\)"):
        bind(make_cells(PANEL, total_counts=COUNTS.sum(axis=1)))


def test_what_is_allowed_is_the_share_of_the_total_and_not_the_number_of_genes() -> None:
    """40 of 60 genes are missing, and what they carry decides."""
    share = missing_share(PANEL)
    with pytest.raises(GenePanelError):
        bind(make_cells(PANEL), allow_missing_genes=share - 0.01)
    with pytest.warns(CausCellWarning, match="40 of 60 genes"):
        bind(make_cells(PANEL), allow_missing_genes=share + 0.01)


def test_totals_that_lack_genes_are_corrected_by_their_share_and_a_warning_says_so() -> None:
    """By hand: the sum over the genes that are there, over the share that they carry."""
    genes = GENES[:50]
    share = missing_share(genes)
    with pytest.warns(CausCellWarning, match=rf"10 of 60 genes .*totals were taken for {1 / (1 - share):.4g} times"):
        given = read(make_cells(genes), allow_missing_genes=0.9)
    sums = COUNTS[:, :50].sum(axis=1, keepdims=True) / (1 - share)
    np.testing.assert_allclose(given, np.log1p(COUNTS[:, : len(PANEL)] / sums * 1e4), rtol=1e-5)
    ratio = np.expm1(given).sum() / np.expm1(EXPECTED).sum()
    assert ratio == pytest.approx(1, abs=0.02)  # without the correction 1 / (1 - share)
    assert 1 / (1 - share) > 1.1


def test_an_older_model_does_not_know_shares_and_says_that_values_come_out_too_large() -> None:
    model = replace(MODEL, shares=None, panel_sums=None)
    with pytest.raises(GenePanelError, match=r"40 of 60 genes .* are missing: .*allow_missing_genes=0\.67"):
        bind(make_cells(PANEL), model)
    with pytest.warns(CausCellWarning, match=r"values are too large by as much as these genes carry"):
        bind(make_cells(PANEL), model, allow_missing_genes=0.67)
    np.testing.assert_allclose(read(make_cells(PANEL), model, totals="n_counts"), EXPECTED, rtol=1e-6)


def test_a_file_with_nothing_of_the_total_is_not_advised_to_allow_it() -> None:
    model = replace(MODEL, normalisation_genes=tuple(f"other{i}" for i in range(60)))
    with pytest.raises(GenePanelError) as caught:
        PanelReader(model, GENES, allow_missing=0.99)
    assert "allow_missing_genes=" not in str(caught.value)


# -- where they came from ----------------------------------------------------------------------------------------------


def test_a_worker_reads_the_same_totals(tmp_path: object) -> None:
    path = f"{tmp_path}/cut.h5ad"
    make_cells(PANEL).write_h5ad(path)
    bound = PanelCells(open_cells(path), SCHEMA, MODEL, totals="n_counts")
    assert bound.source is not None
    with bound.source.open(SCHEMA, MODEL) as again:
        np.testing.assert_array_equal(again.read(EVERY).expression, bound.read(EVERY).expression)
    assert bound.describe_origin()["totals"] == "n_counts"
    bound.cells.close()


# -- library sizes, which counts are made for --------------------------------------------------------------------------


def library_sizes(cells: anndata.AnnData, model: Preprocessing = MODEL, **options: object) -> np.ndarray:
    batch = bind(cells, model, **options).read_with_library(slice(3, 40))
    np.testing.assert_array_equal(batch.expression, bind(cells, model, **options).read(slice(3, 40)).expression)
    assert batch.library is not None
    return batch.library


def test_a_cells_library_size_is_the_total_that_it_is_scaled_by() -> None:
    """Over the model's genes, whatever others the file has; of a column; of rounded counts."""
    sums = COUNTS.sum(axis=1)[3:40]
    np.testing.assert_array_equal(library_sizes(make_cells()), sums)
    np.testing.assert_array_equal(library_sizes(make_cells(PANEL), totals="n_counts"), sums)
    few = replace(MODEL, normalisation_genes=GENES[:30], shares=MODEL.shares[:30])
    np.testing.assert_array_equal(library_sizes(make_cells(), few), COUNTS[:, :30].sum(axis=1)[3:40])
    corrected = make_cells(counts=COUNTS + 0.2 * (COUNTS > 0))
    np.testing.assert_array_equal(library_sizes(corrected, round_counts=True), sums)


@pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")
def test_a_library_size_is_corrected_for_the_genes_that_a_file_lacks() -> None:
    """As the total is, by the share that they carry in training cells."""
    genes = GENES[:50]
    expected = COUNTS[:, :50].sum(axis=1)[3:40] / (1 - missing_share(genes))
    np.testing.assert_allclose(library_sizes(make_cells(genes), allow_missing_genes=0.5), expected, rtol=1e-6)


def test_log1p_values_tell_no_library_size() -> None:
    values = make_cells(PANEL)
    values.X = sparse.csr_matrix(EXPECTED)
    with pytest.raises(ConfigurationError, match=r"given as log1p values.*\(expression='counts'\).*\(library_size="):
        bind(values, expression="log1p").read_with_library(EVERY)
