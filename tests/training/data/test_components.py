"""Principal components of the training rows."""

import anndata
import numpy as np
import pytest
from short_runs import small_config
from simulation import counts, replaced

from causcell_training.data.cells import TrainingData, prepare
from causcell_training.data.components import principal_axes


def scores_of(data: TrainingData, axes: np.ndarray) -> np.ndarray:
    """Components of all cells, from the standardised expression that the model reads."""
    return data.preprocessing.standardise(data.expression.toarray()) @ axes


def test_axes_give_the_principal_components_of_the_training_cells_on_the_log_scale(prepared: TrainingData) -> None:
    count = 10
    axes = principal_axes(prepared, count, seed=0)
    assert (axes.dtype, axes.shape) == (np.float32, (50, count))
    train = prepared.rows("train")
    expression = prepared.expression.toarray().astype(np.float64)[train]
    centred = expression - expression.mean(axis=0)
    expected = np.linalg.svd(centred, full_matrices=False)
    scores = scores_of(prepared, axes)[train]
    deviation = scores.std(axis=0, ddof=1)
    assert deviation.mean() == pytest.approx(1, rel=1e-4)
    # one number scales them all: their deviations are in the ratios of the singular values
    np.testing.assert_allclose(deviation / deviation[0], expected.S[:count] / expected.S[0], rtol=1e-4)
    agreement = np.corrcoef(scores.T, (centred @ expected.Vh[:count].T).T)[:count, count:]
    np.testing.assert_allclose(np.abs(agreement), np.eye(count), atol=1e-4)  # each up to its sign; float32 products


def test_more_axes_than_the_data_have_components_are_zero(prepared: TrainingData) -> None:
    axes = principal_axes(prepared, 128, seed=0)
    assert axes.shape == (50, 128)
    assert np.isfinite(axes).all()
    used = (axes != 0).any(axis=0)
    assert used[:49].all()
    assert not used[49:].any()


def test_axes_are_the_same_again_for_a_seed_and_do_not_know_held_out_cells(
    cells: anndata.AnnData, prepared: TrainingData
) -> None:
    axes = principal_axes(prepared, 8, seed=0)
    np.testing.assert_array_equal(principal_axes(prepared, 8, seed=0), axes)
    strange = counts(cells)
    strange[prepared.part != "train", :5] += 900
    np.testing.assert_array_equal(principal_axes(prepare(replaced(cells, strange), small_config()), 8, seed=0), axes)
