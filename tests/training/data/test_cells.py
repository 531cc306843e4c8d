"""Training data: one expression from any file, its moments and its labels."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from short_runs import small_config
from simulation import counts, replaced

from causcell.concepts import UNLABELLED
from causcell.errors import UnknownConceptError
from causcell_training.data.cells import TrainingData, prepare

ALL_GENES = small_config(genes="all")

Source = anndata.AnnData | Path


def dense(cells: anndata.AnnData) -> anndata.AnnData:
    return anndata.AnnData(cells.X.toarray(), obs=cells.obs, var=cells.var)


def in_memory_csc(cells: anndata.AnnData, folder: Path) -> Source:
    return anndata.AnnData(sparse.csc_matrix(cells.X), obs=cells.obs, var=cells.var)


def in_memory_dense(cells: anndata.AnnData, folder: Path) -> Source:
    return dense(cells)


def float_counts(cells: anndata.AnnData, folder: Path) -> Source:
    return anndata.AnnData(cells.X.astype(np.float32), obs=cells.obs, var=cells.var)


def h5ad_csr(cells: anndata.AnnData, folder: Path) -> Source:
    cells.write_h5ad(folder / "csr.h5ad")
    return folder / "csr.h5ad"


def h5ad_csc(cells: anndata.AnnData, folder: Path) -> Source:
    anndata.AnnData(sparse.csc_matrix(cells.X), obs=cells.obs, var=cells.var).write_h5ad(folder / "csc.h5ad")
    return folder / "csc.h5ad"


def h5ad_dense(cells: anndata.AnnData, folder: Path) -> Source:
    dense(cells).write_h5ad(folder / "dense.h5ad")
    return folder / "dense.h5ad"


def backed(cells: anndata.AnnData, folder: Path) -> Source:
    cells.write_h5ad(folder / "backed.h5ad")
    return anndata.read_h5ad(folder / "backed.h5ad", backed="r")


def zarr_csr(cells: anndata.AnnData, folder: Path) -> Source:
    cells.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:.*holds its matrix by columns")
@pytest.mark.parametrize(
    "store", [in_memory_csc, in_memory_dense, float_counts, h5ad_csr, h5ad_csc, h5ad_dense, backed, zarr_csr]
)
def test_every_form_of_the_same_cells_gives_the_same_data(
    cells: anndata.AnnData,
    prepared: TrainingData,
    tmp_path: Path,
    store: Callable[[anndata.AnnData, Path], Source],
) -> None:
    """Bit for bit: whatever holds the counts, the same numbers go through the same operations."""
    found = prepare(store(cells, tmp_path), small_config())
    assert found.preprocessing.genes == prepared.preprocessing.genes
    np.testing.assert_array_equal(found.expression.toarray(), prepared.expression.toarray())
    np.testing.assert_array_equal(found.preprocessing.mean, prepared.preprocessing.mean)
    np.testing.assert_array_equal(found.preprocessing.deviation, prepared.preprocessing.deviation)
    np.testing.assert_array_equal(found.labels, prepared.labels)
    np.testing.assert_array_equal(found.part, prepared.part)
    assert found.schema == prepared.schema


def test_a_layer_is_read_in_place_of_x(cells: anndata.AnnData, prepared: TrainingData) -> None:
    moved = anndata.AnnData(np.full(cells.shape, 0.5), obs=cells.obs, var=cells.var, layers={"raw": cells.X})
    found = prepare(moved, small_config(layer="raw"))
    np.testing.assert_array_equal(found.expression.toarray(), prepared.expression.toarray())


def test_counts_are_scaled_over_all_genes_of_the_file_and_logged(
    cells: anndata.AnnData, prepared: TrainingData
) -> None:
    raw = cells.X.toarray().astype(np.float64)
    everywhere = pd.DataFrame(np.log1p(1e4 * raw / raw.sum(axis=1, keepdims=True)), columns=cells.var_names)
    expected = everywhere[list(prepared.preprocessing.genes)].to_numpy()
    np.testing.assert_allclose(prepared.expression.toarray(), expected, rtol=1e-6)  # float32
    assert prepared.preprocessing.normalisation_genes == tuple(cells.var_names)


def test_log1p_values_are_taken_as_given(cells: anndata.AnnData) -> None:
    values = sparse.csr_matrix(np.log1p(cells.X.toarray() / 3).astype(np.float32))
    given = anndata.AnnData(values, obs=cells.obs, var=cells.var)
    found = prepare(given, small_config(genes="all", expression="log1p"))
    np.testing.assert_array_equal(found.expression.toarray(), values.toarray())
    assert found.preprocessing.scale == "log1p"
    assert found.preprocessing.normalisation_genes == ()


def test_moments_are_those_of_the_training_cells_with_a_floor(cells: anndata.AnnData) -> None:
    steady = counts(cells)
    steady[:, 5] = 0  # never expressed: its deviation is 0
    data = prepare(replaced(cells, steady), ALL_GENES)
    training = data.expression.toarray().astype(np.float64)[data.rows("train")]
    assert training.std(axis=0)[5] < 0.1
    np.testing.assert_allclose(data.preprocessing.mean, training.mean(axis=0), rtol=1e-5, atol=1e-6)
    expected = np.maximum(training.std(axis=0), 0.1)
    np.testing.assert_allclose(data.preprocessing.deviation, expected, rtol=1e-4)  # of squares rounded to float32
    assert data.preprocessing.deviation[5] == np.float32(0.1)
    assert data.preprocessing.mean[5] == 0


def test_held_out_cells_decide_neither_panel_nor_moments(cells: anndata.AnnData, prepared: TrainingData) -> None:
    held_out = np.flatnonzero(prepared.part != "train")
    strange = counts(cells)
    strange[held_out] = np.random.default_rng(0).integers(0, 1000, size=(len(held_out), cells.n_vars))
    found = prepare(replaced(cells, strange), small_config())
    assert found.preprocessing.genes == prepared.preprocessing.genes
    np.testing.assert_array_equal(found.preprocessing.mean, prepared.preprocessing.mean)
    np.testing.assert_array_equal(found.preprocessing.deviation, prepared.preprocessing.deviation)


def test_a_batch_is_the_expression_and_labels_of_its_rows(prepared: TrainingData) -> None:
    rows = np.array([7, 3, 200])
    expression, labels = prepared.batch(rows)
    np.testing.assert_array_equal(expression.numpy(), prepared.expression.toarray()[rows])
    np.testing.assert_array_equal(labels.numpy(), prepared.labels[rows])


def test_labels_are_codes_and_missing_ones_unlabelled(cells: anndata.AnnData) -> None:
    partly = cells.copy()
    partly.obs.loc[partly.obs_names[::4], "donor"] = np.nan
    data = prepare(partly, ALL_GENES)
    donor = data.schema.index("donor")
    assert data.schema["donor"].labels == ("d1", "d2", "d3")
    assert (data.labels[::4, donor] == UNLABELLED).all()
    rest = np.arange(cells.n_obs) % 4 > 0
    told = np.array(data.schema["donor"].labels)[data.labels[rest, donor]]
    np.testing.assert_array_equal(told, cells.obs["donor"].astype(str)[rest])
    assert (data.labels[:, data.schema.index("stim")] != UNLABELLED).all()


def test_a_concept_without_a_column_is_named(cells: anndata.AnnData) -> None:
    with pytest.raises(UnknownConceptError, match=r"'batch'.*'stim'"):
        prepare(cells, small_config(concept=("stim", "batch"), edge=()))
