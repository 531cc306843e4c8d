"""From a file's values to panel expression: the scale, the genes by name, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from causcell.cells.panel import PanelReader
from causcell.errors import ConfigurationError, ExpressionError, GenePanelError
from causcell.preprocessing import Preprocessing, check_scale, gene_digest

PANEL = ("G3", "G0", "G5", "G1")
NORMALISATION = ("G0", "G1", "G2", "G3", "G4", "G5")
FILE = ("G0", "G1", "G2", "G3", "G4", "G5", "extra0", "extra1")
NAMES = [f"cell{i}" for i in range(30)]

PREPROCESSING = Preprocessing(
    PANEL, "counts", NORMALISATION, np.array([0.5, 1.5, 2.5, 3.5], "float32"), np.ones(4, "float32")
)
LOG1P = replace(PREPROCESSING, scale="log1p")


def counts():
    """Counts int32 [30 x 8], many zeros, none of the cells empty."""
    rng = np.random.default_rng(0)
    values = (rng.poisson(3, size=(30, 8)) * (rng.random((30, 8)) < 0.5)).astype(np.int32)
    values[:, 2] += 1
    return values


def by_hand(values):
    """log1p(x / total over the normalisation genes * 1e4) of the panel's genes, float64."""
    place = {gene: i for i, gene in enumerate(FILE)}
    totals = values[:, [place[gene] for gene in NORMALISATION]].sum(axis=1, dtype=float)
    return np.log1p(values[:, [place[gene] for gene in PANEL]] / totals[:, None] * 1e4)


def read(values, var_names=FILE, preprocessing=PREPROCESSING, **options):
    return PanelReader(preprocessing, var_names, **options).read(values, NAMES)


# -- values ------------------------------------------------------------------------------------------------------------


def test_counts_are_scaled_to_ten_thousand_and_logged():
    """rtol 1e-6: a handful of float32 roundings of 6e-8 each."""
    expression = read(counts())
    assert expression.dtype == np.float32
    np.testing.assert_allclose(expression, by_hand(counts()), rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("preprocessing", [PREPROCESSING, LOG1P], ids=["counts", "log1p"])
@pytest.mark.parametrize("order", [1, -1])
def test_the_sparse_answer_is_the_dense_one_without_its_zeros(form, preprocessing, order):
    """Also in another order of genes, with explicit zeros, and where the panel's genes are missing."""
    values = counts()
    if preprocessing is LOG1P:
        values = np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    names, values = FILE[::order], values[:, ::order]
    given = form(values)
    if sparse.issparse(given):
        given.data[::5] = 0
        values = given.toarray()
    cells = [f"cell {i}" for i in range(len(values))]
    reader = PanelReader(preprocessing, names)
    found, expected = reader.read_sparse(given, cells), reader.read(values, cells)
    assert found.format == "csr"
    assert found.has_sorted_indices
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.nnz == np.count_nonzero(expected)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16", "float32", "float64"])
@pytest.mark.parametrize(
    "form",
    [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array],
)
def test_the_form_of_the_matrix_makes_no_difference(form, dtype):
    """Same bits: totals of counts are exact, and the rest is the same float32 arithmetic."""
    np.testing.assert_array_equal(read(form(counts().astype(dtype))), read(counts()))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("preprocessing", [PREPROCESSING, LOG1P], ids=["counts", "log1p"])
def test_genes_in_another_order_give_the_same_bits(form, preprocessing):
    values = counts() if preprocessing is PREPROCESSING else counts() * 0.37
    shuffled = np.random.default_rng(1).permutation(len(FILE))
    np.testing.assert_array_equal(
        read(form(values[:, shuffled]), [FILE[i] for i in shuffled], preprocessing),
        read(form(values), preprocessing=preprocessing),
    )


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_genes_outside_the_totals_do_not_count(form):
    values = counts()
    more = values.copy()
    more[:, 6:] += 1000
    np.testing.assert_array_equal(read(form(more)), read(form(values)))
    np.testing.assert_array_equal(read(form(values[:, :6]), FILE[:6]), read(form(values)))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_genes_outside_the_panel_count_in_the_totals(form):
    """G2 is no panel gene, but one of the totals': more of it makes all panel genes less."""
    values = counts() + 1
    more = values.copy()
    more[:, 2] += 10
    assert (read(form(more)) < read(form(values))).all()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_log1p_values_are_taken_as_given(form):
    values = np.log1p(counts() * 0.37).astype(np.float32)
    columns = [FILE.index(gene) for gene in PANEL]
    np.testing.assert_array_equal(read(form(values), preprocessing=LOG1P), values[:, columns])


def test_a_cell_does_not_depend_on_its_neighbours():
    values = sparse.csr_matrix(counts())
    reader = PanelReader(PREPROCESSING, FILE)
    np.testing.assert_array_equal(reader.read(values[7:9], NAMES[7:9]), reader.read(values, NAMES)[7:9])


def test_duplicated_and_unsorted_entries_are_summed_and_the_input_is_left_alone():
    data = np.array([1, 5, 2, 4, 3], dtype=np.int32)
    indices = np.array([3, 0, 3, 5, 1])
    indptr = np.array([0, 3, 5])
    values = sparse.csr_matrix((data.copy(), indices.copy(), indptr), shape=(2, len(FILE)))
    dense = np.zeros((2, len(FILE)), dtype=np.int32)
    dense[0, [0, 3]], dense[1, [1, 5]] = (5, 3), (3, 4)
    np.testing.assert_array_equal(read(values), read(dense))
    np.testing.assert_array_equal(values.data, data)
    np.testing.assert_array_equal(values.indices, indices)


def test_explicit_zeros_are_zeros():
    values = sparse.csr_matrix(counts())
    values.data[::3] = 0
    np.testing.assert_array_equal(read(values), read(values.toarray()))


def test_standardise_and_back_clips_at_zero_expression():
    """Tolerance 1e-6: two float32 roundings of values of a few units."""
    preprocessing = replace(PREPROCESSING, deviation=np.array([0.1, 1, 2, 3], "float32"))
    expression = read(counts(), preprocessing=preprocessing)
    standardised = preprocessing.standardise(expression)
    np.testing.assert_allclose(standardised * preprocessing.deviation + preprocessing.mean, expression, atol=1e-6)
    np.testing.assert_allclose(preprocessing.expression(standardised), expression, atol=1e-6)
    assert (preprocessing.expression(np.full((1, 4), -100, dtype="float32")) == 0).all()


def test_gene_digest_depends_on_the_order():
    assert gene_digest(PANEL) == gene_digest(list(PANEL))
    assert gene_digest(PANEL) != gene_digest(sorted(PANEL))


# -- genes -------------------------------------------------------------------------------------------------------------


def test_missing_panel_genes_are_refused_by_name():
    keep = [i for i, gene in enumerate(FILE) if gene not in ("G3", "G5")]
    with pytest.raises(GenePanelError, match=r"2 of 4 panel genes are missing: 'G3', 'G5';.*allow_missing_genes=0\.50"):
        read(counts()[:, keep], [FILE[i] for i in keep])


def test_missing_genes_of_the_totals_are_refused_by_name():
    with pytest.raises(GenePanelError, match="1 of 6 genes that a cell's total is taken over are missing: 'G4'"):
        read(np.delete(counts(), 4, axis=1), np.delete(FILE, 4))


def test_the_totals_genes_do_not_matter_for_log1p_values():
    values = np.log1p(counts() * 0.37)
    np.testing.assert_array_equal(
        read(np.delete(values, 4, axis=1), np.delete(FILE, 4), LOG1P), read(values, preprocessing=LOG1P)
    )


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_missing_genes_that_are_allowed_get_the_training_mean(form):
    values = np.log1p(counts() * 0.37).astype("float32")
    reader = PanelReader(LOG1P, np.delete(FILE, 3), allow_missing=0.25)
    expression = reader.read(form(np.delete(values, 3, axis=1)), NAMES)
    assert reader.missing == ("G3",)
    assert (expression[:, 0] == 0.5).all()
    np.testing.assert_array_equal(expression[:, 1:], read(values, preprocessing=LOG1P)[:, 1:])


def test_more_missing_than_allowed_is_refused():
    with pytest.raises(GenePanelError, match="2 of 4 panel genes are missing"):
        PanelReader(LOG1P, FILE[:3], allow_missing=0.49)


@pytest.mark.parametrize("absent", [1, 7, 29, 57, 58, 99])
def test_the_fraction_that_a_message_names_is_enough(absent):
    """29 of 100 is 0.29, though 0.29 * 100 is less than 29 in floating point."""
    genes = tuple(f"G{i}" for i in range(100))
    hundred = Preprocessing(genes, "log1p", (), np.zeros(100, "float32"), np.ones(100, "float32"))
    with pytest.raises(GenePanelError, match="allow_missing_genes=") as caught:
        PanelReader(hundred, genes[absent:])
    advised = float(str(caught.value).rsplit("=", 1)[1])
    assert advised == pytest.approx(absent / 100)
    assert len(PanelReader(hundred, genes[absent:], allow_missing=advised).missing) == absent


def test_a_file_without_any_panel_gene_is_not_advised_to_allow_it():
    """No fraction below 1 allows it, so naming one would send the user in a circle."""
    with pytest.raises(GenePanelError, match="4 of 4 panel genes are missing") as caught:
        PanelReader(LOG1P, ["A", "B"])
    assert "allow_missing_genes=" not in str(caught.value)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_allowed_fraction_out_of_range(fraction):
    with pytest.raises(ConfigurationError, match=r"allow_missing_genes=.* is no fraction from 0 to below 1"):
        PanelReader(PREPROCESSING, FILE, allow_missing=fraction)


def test_other_case_is_hinted_at():
    with pytest.raises(GenePanelError, match=r"4 of 4 panel genes.*upper and lower case.*another species"):
        PanelReader(PREPROCESSING, [gene.lower() for gene in FILE])


def test_no_hint_at_case_where_it_is_not_the_cause():
    with pytest.raises(GenePanelError) as caught:
        PanelReader(PREPROCESSING, [gene for gene in FILE if gene != "G3"])
    assert "lower case" not in str(caught.value)


def test_duplicated_genes_are_refused_by_name():
    with pytest.raises(GenePanelError, match=r"2 gene names are duplicated: 'G0', 'G7'.*var_names_make_unique"):
        PanelReader(PREPROCESSING, ["G7", *FILE, "G0", "G7"])


# -- values that are not what was declared -----------------------------------------------------------------------------


def values_with(row, column, value, scale="counts"):
    values = counts().astype(np.float64) * (1 if scale == "counts" else 0.37)
    values[row, column] = value
    return values


FORMS = pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])


@FORMS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", ["counts", "log1p"])
def test_nan_and_infinite_values_are_refused_by_cell(form, bad, scale):
    values = values_with(17, 3, bad, scale)
    with pytest.raises(ExpressionError, match="1 NaN or infinite values, first in cell 'cell17'"):
        read(form(values), preprocessing=replace(PREPROCESSING, scale=scale))


@FORMS
@pytest.mark.parametrize("scale", ["counts", "log1p"])
def test_negative_values_are_refused_by_cell(form, scale):
    values = values_with(17, 3, -2, scale)
    with pytest.raises(ExpressionError, match=r"negative values \(lowest -2\), first in cell 'cell17'"):
        read(form(values), preprocessing=replace(PREPROCESSING, scale=scale))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_the_first_of_several_bad_cells_is_named(form):
    values = values_with(17, 3, -2)
    values[21, 0] = -3
    with pytest.raises(ExpressionError, match="first in cell 'cell17'"):
        read(form(values))


@FORMS
def test_fractions_declared_as_counts_are_refused(form):
    with pytest.raises(ExpressionError, match=r"declared as counts, but holds 2\.5 in cell 'cell17'.*log1p"):
        read(form(values_with(17, 3, 2.5)))


@FORMS
def test_counts_declared_as_log1p_are_refused(form):
    with pytest.raises(ExpressionError, match=r"declared as log1p, but holds whole numbers only.*declare counts"):
        read(form(counts()), preprocessing=LOG1P)


@FORMS
def test_values_too_large_for_log1p_are_refused(form):
    with pytest.raises(ExpressionError, match=r"declared as log1p, but holds 20\.5, more than any log1p value"):
        read(form(values_with(17, 3, 20.5, "log1p")), preprocessing=LOG1P)


@FORMS
def test_bad_values_of_genes_outside_the_panel_are_refused_too(form):
    """They tell that the file is not what was declared."""
    with pytest.raises(ExpressionError, match="negative values"):
        read(form(values_with(17, 7, -1)))


@FORMS
def test_cells_without_counts_are_refused_by_name(form):
    values = counts()
    values[[4, 17]] = 0
    values[17, 7] = 5  # a gene outside the totals does not help
    with pytest.raises(ExpressionError, match=r"2 cells have no counts at all: 'cell4', 'cell17'.*filter_cells"):
        read(form(values))


@FORMS
def test_a_file_without_any_count_is_refused(form):
    with pytest.raises(ExpressionError, match="30 cells have no counts"):
        read(form(np.zeros((30, len(FILE)), dtype=np.int32)))


def test_an_empty_cell_of_log1p_values_is_allowed():
    """Its total is not needed, and it may well have none of the genes that the file was cut to."""
    values = np.log1p(counts() * 0.37)
    values[4] = 0
    assert (read(sparse.csr_matrix(values), preprocessing=LOG1P)[4] == 0).all()


def test_unknown_scale():
    with pytest.raises(ConfigurationError, match="scale 'tpm' is not known; declare one of 'counts', 'log1p'"):
        check_scale("tpm")
