"""Counts that are not whole: what they look like, and what is rounded."""

import numpy as np
import pytest
from scales import GENES, PANEL, draw_counts, normalised, to_form, trained_on
from scipy import sparse

from causcell.cells.panel import PanelReader
from causcell.cells.values import guess_scale, recognise
from causcell.errors import ConfigurationError, ExpressionError

COUNTS = draw_counts()
MODEL = trained_on(COUNTS)
NAMES = [f"cell{i}" for i in range(len(COUNTS))]
RIGHT = normalised(COUNTS)
EXPECTED = RIGHT[:, : len(PANEL)]
FORMS = pytest.mark.parametrize("form", ["dense", "sparse"])


def corrected(counts: np.ndarray) -> np.ndarray:
    """Counts less a share of each gene that differs from cell to cell, as of ambient RNA."""
    return counts * np.random.default_rng(3).uniform(0.8, 1, counts.shape)


def read(values: np.ndarray, form: str = "sparse", **options: object) -> np.ndarray:
    return PanelReader(MODEL, GENES, **options).read(to_form(values, form), NAMES)


@FORMS
@pytest.mark.parametrize(
    "values",
    [COUNTS.astype(np.float32) * np.float32(1.0000001), COUNTS - 4e-4 * (COUNTS > 0), COUNTS * 1e5 * (1 + 1e-7)],
    ids=["times 1.0000001", "less 4e-4", "large ones"],
)
def test_counts_nearly_whole_are_told_to_be_rounded_and_rounding_gives_the_counts(
    form: str, values: np.ndarray
) -> None:
    with pytest.raises(ExpressionError, match=r"whole but for .*went through floating point.*round_counts=True"):
        read(values, form)
    np.testing.assert_allclose(read(values, form, round_counts=True), EXPECTED, rtol=1e-6)


@FORMS
def test_rounded_counts_are_whole_in_values_and_totals(form: str) -> None:
    values = corrected(COUNTS)
    with pytest.raises(ExpressionError, match=r"corrected for ambient RNA or estimated.*\(round_counts=True\)"):
        read(values, form)
    given = read(values, form, round_counts=True)
    np.testing.assert_allclose(given, normalised(np.rint(values))[:, : len(PANEL)], rtol=1e-5)


@FORMS
def test_what_is_whole_already_is_left_as_it_is(form: str) -> None:
    np.testing.assert_array_equal(read(COUNTS, form, round_counts=True), read(COUNTS, form))


def test_the_values_given_are_left_alone() -> None:
    values = sparse.csr_matrix(COUNTS * 1.0000001)
    before = values.data.copy()
    PanelReader(MODEL, GENES, round_counts=True).read(values, NAMES)
    np.testing.assert_array_equal(values.data, before)


def test_totals_of_a_column_are_held_against_counts_before_they_are_rounded() -> None:
    """Rounding may raise a cell's sum above its total."""
    values = np.where(COUNTS > 0, COUNTS - 0.4, 0)
    reader = PanelReader(MODEL, PANEL, totals="n_counts", round_counts=True)
    totals = values.sum(axis=1)
    given = reader.read(values[:, : len(PANEL)], NAMES, totals)
    np.testing.assert_allclose(given, np.log1p(COUNTS[:, : len(PANEL)] / totals[:, None] * 1e4), rtol=1e-5)


@pytest.mark.parametrize(
    ("look", "values"),
    [
        ("log1p", normalised(COUNTS)),
        ("log1p", normalised(COUNTS, 1e4, 2)),
        ("log1p", normalised(COUNTS)[:, :20]),
        ("normalised", COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4),
        ("normalised", (COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)[:, :20]),
        ("brought back", COUNTS * np.linspace(0.99, 1.01, len(COUNTS))[:, None]),
        ("scaled", COUNTS * 0.93),
        ("fractional", corrected(COUNTS)),
    ],
)
def test_values_are_recognised(look: str, values: np.ndarray) -> None:
    assert recognise(values) == recognise(sparse.csr_matrix(values)) == look


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (normalised(COUNTS), "can't be rounded; it looks as log1p values are.*expression='log1p'"),
        (normalised(COUNTS)[:, :60], "as log1p values are"),
        (COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4, "can't be rounded; it looks as counts scaled in each cell"),
        (COUNTS / 1000, "rounding would change the cells' sum by .*: these are no counts"),
    ],
)
def test_what_is_no_counts_is_not_rounded(values: np.ndarray, words: str) -> None:
    with pytest.raises(ExpressionError, match=words):
        read(values, round_counts=True)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (COUNTS, "counts"),
        (COUNTS * 1.0000001, "counts"),
        (COUNTS * 0.93, "counts"),
        (corrected(COUNTS), "counts"),
        (RIGHT, "log1p"),
        (RIGHT[:, :20], "log1p"),
    ],
)
def test_the_scale_that_nobody_declared_is_guessed(values: np.ndarray, scale: str) -> None:
    assert guess_scale(values) == guess_scale(sparse.csr_matrix(values)) == scale


def test_counts_that_were_normalised_and_brought_back_are_rounded() -> None:
    """By totals that had been rounded, so that each cell is off by up to a hundredth: here of counts below 40."""
    counts = np.minimum(COUNTS, 40)
    values = counts * np.linspace(0.99, 1.01, len(COUNTS))[:, None]
    with pytest.raises(ExpressionError, match=r"normalised and brought back are; round them \(round_counts=True\)"):
        read(values)
    np.testing.assert_allclose(read(values, round_counts=True), normalised(counts)[:, : len(PANEL)], rtol=1e-6)


def test_a_factor_is_named() -> None:
    with pytest.raises(ExpressionError, match=r"as counts times 0\.93 are; give the counts \(divide by it\), or round"):
        read(COUNTS * 0.93)


def test_rounding_is_for_counts() -> None:
    with pytest.raises(ConfigurationError, match="round_counts=True is for counts, and expression='log1p' is read"):
        PanelReader(MODEL, GENES, expression="log1p", round_counts=True)


def test_half_precision_in_a_dense_file_is_read() -> None:
    """scipy has no sparse matrices of float16, which AnnData takes as a dense array."""
    values = normalised(COUNTS).astype(np.float16)
    with pytest.raises(ExpressionError, match="as log1p values are"):
        read(values, "dense")
