"""log1p values that are given to a model: the total and base that they were made with, told where they are wrong."""

import re
import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scales import GENES, PANEL, draw_counts, normalised, to_form, trained_on
from scipy import sparse

from causcell.cells.collection import open_cells
from causcell.cells.log_scale import find_scale, unit_deviation
from causcell.cells.panel import PanelReader
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import Concept, ConceptSchema
from causcell.errors import CausCellWarning, ExpressionError
from causcell.preprocessing import Preprocessing

COUNTS = draw_counts()
MODEL = trained_on(COUNTS)
RIGHT = normalised(COUNTS)
SCHEMA = ConceptSchema((Concept("stim", ("ctrl", "IFN")),), ())

FORMS = pytest.mark.parametrize("form", ["dense", "sparse"])


def read(
    values: np.ndarray, genes: tuple[str, ...] = GENES, form: str = "sparse", model: Preprocessing = MODEL
) -> np.ndarray:
    names = [f"cell{i}" for i in range(len(values))]
    return PanelReader(model, genes, expression="log1p").read(to_form(values, form), names)


def told(values: np.ndarray, genes: tuple[str, ...] = GENES, form: str = "sparse") -> str:
    with pytest.raises(ExpressionError) as caught:
        read(values, genes, form)
    return str(caught.value)


# -- all genes of the total are there ----------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "two decimals"])
def test_values_for_a_total_of_10000_are_taken_as_they_are(form: str, kind: str) -> None:
    """Whatever the values were stored with: float16 rounds them by up to .4 %, two decimals by up to .5 %."""
    values = RIGHT.round(2) if kind == "two decimals" else RIGHT.astype(kind)
    values = values.astype(np.float32) if form == "sparse" else values  # scipy has no float16
    np.testing.assert_array_equal(read(values, form=form), values[:, : len(PANEL)].astype(np.float32))


@FORMS
@pytest.mark.parametrize(
    ("total", "base", "scale", "remedy"),
    [
        (1e6, np.e, "natural logarithms for a total of 1,000,000 a cell", "np.log1p(np.expm1(X) * 0.01)"),
        (2500, np.e, "natural logarithms for a total of 2,500 a cell", "np.log1p(np.expm1(X) * 4)"),
        (1e4, 2, "logarithms of base 2 for a total of 10,000 a cell", "multiply them by ln 2 = 0.693147"),
        (1e4, 10, "logarithms of base 10 for a total of 10,000 a cell", "multiply them by ln 10 = 2.302585"),
        (1e6, 2, "logarithms of base 2 for a total of 1,000,000 a cell", "np.log1p((2**X - 1) * 0.01)"),
    ],
)
def test_another_total_or_base_is_named_with_its_remedy(
    form: str, total: float, base: float, scale: str, remedy: str
) -> None:
    message = told(normalised(COUNTS, total, base), form=form)
    assert scale in message
    assert remedy in message
    assert "in cell 'cell0', over the 60 genes" in message
    assert "needs 10,000" in message


@pytest.mark.parametrize(("total", "base"), [(1e6, np.e), (2500, np.e), (1e4, 2), (1e4, 10), (1e6, 2), (300, 10)])
def test_the_remedy_that_is_named_is_right(total: float, base: float) -> None:
    """rtol 1e-4: the remedy's factor has six digits, the values are float32."""
    wrong = normalised(COUNTS, total, base).astype(np.float64)
    message = told(wrong)
    factor = re.search(r"multiply them by ln \d+ = ([\d.]+)", message)
    expression = re.search(r"or give (np\.log1p\(.*\)), or give raw counts", message)
    mended = wrong * float(factor[1]) if factor else eval(expression[1], {"np": np, "X": wrong})
    np.testing.assert_allclose(read(mended), RIGHT[:, : len(PANEL)], rtol=1e-4)


def test_scanpys_default_total_is_named() -> None:
    """The median of the cells' totals, in place of 10,000."""
    counts = np.concatenate([COUNTS, COUNTS[:1]])  # an odd number of cells: the median is a whole number
    median = np.median(counts.sum(axis=1))
    assert f"natural logarithms for a total of {median:,.0f} a cell" in told(normalised(counts, None))


def test_a_single_cell_tells_its_base_by_counts_being_whole() -> None:
    """One cell's sum is constant under every base; its values are multiples of one count's under one alone."""
    rich = draw_counts(1, depth=3)
    assert "base 2 for a total of 10,000" in told(normalised(rich, 1e4, 2))
    assert "natural logarithms for a total of 2,500" in told(normalised(rich, 2500))


def test_a_wrong_cell_among_right_ones_is_named() -> None:
    values = RIGHT.copy()
    values[17] = normalised(COUNTS, 5000)[17]
    assert "sums to 5,000 in cell 'cell17'" in told(values)


def test_log1p_of_counts_as_they_are_is_named() -> None:
    assert "log1p of counts that were not scaled to a total" in told(np.log1p(COUNTS).astype(np.float32))


def test_values_that_were_normalised_over_more_genes_than_the_models_are_told_so() -> None:
    """The file's total of 10,000 is over 70 genes, the model's over 60 of them."""
    more = np.concatenate([COUNTS, draw_counts(seed=1)[:, :10] * 3], axis=1)
    message = told(normalised(more), (*GENES, *(f"other{i}" for i in range(10))))
    assert "a total of 10,000 over all genes of the file" in message


def test_genes_beyond_the_models_do_not_matter_where_the_total_is_right() -> None:
    more = np.concatenate([RIGHT, RIGHT[:, :10]], axis=1)
    np.testing.assert_array_equal(read(more, (*GENES, *(f"other{i}" for i in range(10)))), RIGHT[:, : len(PANEL)])


def test_an_empty_cell_is_refused() -> None:
    values = RIGHT.copy()
    values[3] = 0
    assert "cell 'cell3' has no expression at all" in told(values)


# -- genes of the total are missing ------------------------------------------------------------------------------------


@FORMS
def test_a_file_cut_to_the_panel_is_taken_up_to_the_total(form: str) -> None:
    panel = slice(0, len(PANEL))
    np.testing.assert_array_equal(read(RIGHT[:, panel], PANEL, form), RIGHT[:, panel])
    assert "at most 10,000" in told(normalised(COUNTS, 1e6)[:, panel], PANEL, form)


@pytest.mark.parametrize("base", [2, 10])
def test_another_base_is_told_without_all_genes(base: float) -> None:
    """Counts are whole numbers whatever genes are left."""
    assert f"base {base}" in told(normalised(COUNTS, 1e4, base)[:, : len(PANEL)], PANEL)


def test_values_that_were_normalised_after_the_cut_are_told_so() -> None:
    """Their sums are 10,000 exactly, and the panel carries a part of it."""
    message = told(normalised(COUNTS[:, : len(PANEL)]), PANEL)
    assert "normalised after genes were left out" in message
    assert "over the 20 genes in the file of the 60" in message


def test_a_constant_total_shows_where_hardly_any_gene_is_missing() -> None:
    """The gene that is missing carries next to nothing, so that all sums are near 2,500 in place of 10,000."""
    counts = COUNTS.copy()
    counts[:, 59] = 0
    counts[0, 59] = 1
    model = trained_on(counts)
    with pytest.raises(ExpressionError, match=r"natural logarithms for a total of 2,500 a cell"):
        read(normalised(counts, 2500)[:, :59], GENES[:59], model=model)
    read(normalised(counts)[:, :59], GENES[:59], model=model)


# -- sums that are unlike the training cells' --------------------------------------------------------------------------


def bind(values: np.ndarray, genes: tuple[str, ...], model: Preprocessing, **options: object) -> PanelCells:
    obs = pd.DataFrame({"stim": "ctrl"}, index=[f"cell{i}" for i in range(len(values))])
    adata = anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=list(genes)))
    return PanelCells(open_cells(adata), SCHEMA, model, **options)


@pytest.mark.parametrize("cells", [1, 5, 80])
def test_a_model_of_log1p_values_warns_of_another_total(cells: int) -> None:
    """It can't know which is right: its training file's total is taken as it was."""
    model = trained_on(COUNTS, scale="log1p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(RIGHT[:cells], GENES, model).read(slice(0, cells))
    with pytest.warns(CausCellWarning, match=r"may be normalised to another total.*\(about 0\.\d+ times its total\)"):
        bind(normalised(COUNTS, 500)[:cells], GENES, model).read(slice(0, cells))


def test_a_warning_of_sums_comes_once_and_with_its_numbers() -> None:
    model = trained_on(COUNTS, scale="log1p")
    bound = bind(np.tile(normalised(COUNTS, 500), (4, 1)), GENES, model)
    with pytest.warns(CausCellWarning) as caught:
        for start in range(0, len(bound), 40):
            bound.read(slice(start, start + 40))
    assert len(caught) == 1
    median = np.expm1(normalised(COUNTS, 500)[:, : len(PANEL)]).sum(axis=1)
    quantiles = model.panel_sums
    assert f"sums to {np.median(median):,.0f} in the median of 80 cells" in str(caught[0].message)
    assert f"{quantiles[1]:,.0f} to {quantiles[-2]:,.0f} (median {quantiles[5]:,.0f})" in str(caught[0].message)


def test_cells_read_one_by_one_are_judged_together() -> None:
    """A single cell may well be unlike; plans of atlases read cells one by one."""
    model = trained_on(COUNTS, scale="log1p")
    odd = RIGHT.copy()
    odd[7] = normalised(COUNTS, 500)[7]
    bound = bind(odd, GENES, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in range(len(bound)):
            bound.read(slice(row, row + 1))


def test_values_of_a_file_without_all_genes_are_held_against_the_training_cells() -> None:
    """The panel's part of a total of 3,000 is below every training cell's of 10,000, and nothing else tells."""
    part = slice(0, len(PANEL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(RIGHT[:, part], PANEL, MODEL, expression="log1p").read(slice(0, 80))
    with pytest.warns(CausCellWarning, match=r"its scale can't be told for sure.*about 0\.1 times the total of 10,000"):
        bind(normalised(COUNTS, 1000)[:, part], PANEL, MODEL, expression="log1p").read(slice(0, 80))


def test_nothing_is_compared_in_a_worker_or_with_an_older_model() -> None:
    model = trained_on(COUNTS, scale="log1p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(normalised(COUNTS, 500), GENES, model, announce=False).read(slice(0, 80))
        bind(normalised(COUNTS, 500), GENES, replace(model, panel_sums=None)).read(slice(0, 80))


# -- what is found -----------------------------------------------------------------------------------------------------


def test_multiples_of_a_unit_are_told_from_others() -> None:
    counts = sparse.csr_matrix(draw_counts(depth=3))
    assert unit_deviation(counts, None) == 0
    assert unit_deviation(counts * 0.93, None) < 1e-9
    other = counts.copy()
    other.data = np.random.default_rng(0).uniform(0.5, 10, other.nnz)
    assert unit_deviation(other, None) == pytest.approx(0.25, abs=0.05)
    assert unit_deviation(sparse.csr_matrix(normalised(draw_counts(depth=3)).astype(float)), np.e) < 1e-4


def test_no_scale_is_found_where_no_total_is_the_same() -> None:
    assert find_scale(sparse.csr_matrix(np.random.default_rng(0).uniform(0, 5, (30, 40)))) is None
