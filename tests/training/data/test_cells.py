"""Training data: one expression from any file, the panel, the parts, the moments, and the order of batches."""

import csv
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import small_config
from scipy import sparse

from causcell.concepts import UNLABELLED
from causcell.errors import (
    CausCellError,
    ConfigurationError,
    DataError,
    GenePanelError,
    UnknownConceptError,
    UnknownLabelError,
)
from causcell_training.data.cells import ShuffledBatches, TrainingData, prepare
from causcell_training.data.genes import principal_axes

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


@pytest.fixture(scope="module")
def prepared(cells: anndata.AnnData) -> TrainingData:
    """50 highly variable genes of 60, cells held out at random."""
    return prepare(cells, small_config())


# -- expression --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
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
    counts = cells.X.toarray().astype(np.float64)
    everywhere = pd.DataFrame(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)), columns=cells.var_names)
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
    steady = cells.copy()
    counts = steady.X.toarray()
    counts[:, 5] = 0  # never expressed: its deviation is 0
    steady.X = sparse.csr_matrix(counts)
    data = prepare(steady, ALL_GENES)
    training = data.expression.toarray().astype(np.float64)[data.rows("train")]
    assert training.std(axis=0)[5] < 0.1
    np.testing.assert_allclose(data.preprocessing.mean, training.mean(axis=0), rtol=1e-5, atol=1e-6)
    expected = np.maximum(training.std(axis=0), 0.1)
    np.testing.assert_allclose(data.preprocessing.deviation, expected, rtol=1e-4)  # of squares rounded to float32
    assert data.preprocessing.deviation[5] == np.float32(0.1)
    assert data.preprocessing.mean[5] == 0


def test_held_out_cells_decide_neither_panel_nor_moments(cells: anndata.AnnData, prepared: TrainingData) -> None:
    held_out = np.flatnonzero(prepared.part != "train")
    strange = cells.copy()
    counts = strange.X.toarray()
    counts[held_out] = np.random.default_rng(0).integers(0, 1000, size=(len(held_out), cells.n_vars))
    strange.X = sparse.csr_matrix(counts)
    found = prepare(strange, small_config())
    assert found.preprocessing.genes == prepared.preprocessing.genes
    np.testing.assert_array_equal(found.preprocessing.mean, prepared.preprocessing.mean)
    np.testing.assert_array_equal(found.preprocessing.deviation, prepared.preprocessing.deviation)


def test_a_batch_is_the_expression_and_labels_of_its_rows(prepared: TrainingData) -> None:
    rows = np.array([7, 3, 200])
    expression, labels = prepared.batch(rows)
    np.testing.assert_array_equal(expression.numpy(), prepared.expression.toarray()[rows])
    np.testing.assert_array_equal(labels.numpy(), prepared.labels[rows])


# -- principal components ----------------------------------------------------------------------------------------------


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
    strange = cells.copy()
    counts = strange.X.toarray()
    counts[prepared.part != "train", :5] += 900
    strange.X = sparse.csr_matrix(counts)
    np.testing.assert_array_equal(principal_axes(prepare(strange, small_config()), 8, seed=0), axes)


# -- panel -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 20, 45, 50, 59])
def test_as_many_highly_variable_genes_as_asked_in_the_files_order(cells: anndata.AnnData, number: int) -> None:
    genes = list(prepare(cells, small_config(genes=number)).preprocessing.genes)
    assert len(genes) == number
    assert genes == [gene for gene in cells.var_names if gene in set(genes)]


def test_genes_that_vary_are_preferred(cells: anndata.AnnData) -> None:
    """Genes that hold the same share of every cell's counts are never among the most variable."""
    flat = cells.copy()
    counts = flat.X.toarray()
    counts[:, 10:20] = 0
    flat.X = sparse.csr_matrix(counts)
    chosen = prepare(flat, small_config(genes=30)).preprocessing.genes
    assert len(chosen) == 30
    assert not set(chosen) & set(cells.var_names[10:20])


@pytest.mark.parametrize("genes", ["all", 60, 2000])
def test_all_genes_where_all_are_asked_for_or_fewer_are_there(cells: anndata.AnnData, genes: int | str) -> None:
    assert prepare(cells, small_config(genes=genes)).preprocessing.genes == tuple(cells.var_names)


def test_a_file_of_genes_is_the_panel_in_its_order(cells: anndata.AnnData, tmp_path: Path) -> None:
    panel = ["GENE7", "GENE3", "GENE42"]
    path = tmp_path / "genes.txt"
    path.write_text("\n".join(panel) + "\n")
    data = prepare(cells, small_config(genes=str(path)))
    assert data.preprocessing.genes == tuple(panel)
    everything = prepare(cells, ALL_GENES).expression.toarray()
    np.testing.assert_array_equal(data.expression.toarray(), everything[:, [7, 3, 42]])


def test_a_listed_gene_that_the_file_lacks_is_named(cells: anndata.AnnData, tmp_path: Path) -> None:
    path = tmp_path / "genes.txt"
    path.write_text("GENE7\nNOSUCH\n")
    with pytest.raises(GenePanelError, match="NOSUCH") as error:
        prepare(cells, small_config(genes=str(path)))
    assert "--allow-missing-genes" not in str(error.value)  # an option of generate and embed, not of train


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"GENE1\nGENE2\nGENE1\n", ["GENE1", "duplicated"]),
        (b"\n", ["genes.txt", "0 genes"]),
        (b"GENE1\n", ["genes.txt", "1 gene"]),
        (b"\x89HDF\r\n\xff\xfe\x00", ["genes.txt"]),
    ],
    ids=["twice", "empty", "one", "not text"],
)
def test_a_bad_file_of_genes_is_refused(
    cells: anndata.AnnData, tmp_path: Path, content: bytes, fragments: list[str]
) -> None:
    path = tmp_path / "genes.txt"
    path.write_bytes(content)
    with pytest.raises(CausCellError) as error:
        prepare(cells, small_config(genes=str(path)))
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize("genes", ["no_such_file.txt", 1, 0, -3])
def test_genes_that_are_neither_number_nor_file_are_refused(cells: anndata.AnnData, genes: int | str) -> None:
    with pytest.raises(ConfigurationError, match=str(genes)):
        prepare(cells, small_config(genes=genes))


def test_duplicated_genes_of_the_file_are_refused(cells: anndata.AnnData) -> None:
    twice = cells.copy()
    twice.var_names = ["GENE1" if name == "GENE2" else name for name in cells.var_names]
    with pytest.raises(GenePanelError, match=r"GENE1.*var_names_make_unique"):
        prepare(twice, small_config())


# -- labels ------------------------------------------------------------------------------------------------------------


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


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_share_asked_for_is_held_out_half_to_choose_by(cells: anndata.AnnData, share: float) -> None:
    data = prepare(cells, small_config(genes="all", optimisation__held_out=share))
    held_out = round(share * cells.n_obs)
    counts = {part: len(data.rows(part)) for part in ("train", "choose", "report")}
    expected = {"train": cells.n_obs - held_out, "choose": held_out // 2, "report": held_out - held_out // 2}
    assert counts == expected


def test_who_is_held_out_hangs_on_the_seed(cells: anndata.AnnData) -> None:
    parts = [prepare(cells, small_config(genes="all", seed=seed)).part for seed in (3, 3, 4)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()


@pytest.mark.parametrize("seed", range(8))
def test_every_label_keeps_a_training_cell_at_random(cells: anndata.AnnData, seed: int) -> None:
    """Half of all cells are held out, and three labels have one cell each: each is in danger four times in eight."""
    rare = cells.copy()
    rare.obs["rare"] = pd.Categorical(["one", "two", "three", *["many"] * (cells.n_obs - 3)])
    concepts = ("stim", "donor", "cell_type", "state", "rare")
    data = prepare(rare, small_config(genes="all", concept=concepts, seed=seed, optimisation__held_out=0.5))
    for i, concept in enumerate(data.schema.concepts):
        trained = data.labels[data.rows("train"), i]
        assert set(trained.tolist()) == set(range(len(concept.labels)))


def test_a_split_by_mapping_and_by_file_are_followed(cells: anndata.AnnData, tmp_path: Path) -> None:
    words = np.array(["train", "train", "train", "validation", "test"])
    split = {name: str(words[i % 5]) for i, name in enumerate(cells.obs_names)}
    path = tmp_path / "split.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "cell"])  # columns are found by name
        writer.writerows((word, name) for name, word in reversed(split.items()))  # and cells, too
    for given in (split, path):
        data = prepare(cells, ALL_GENES, given)
        expected = np.array(["train", "train", "train", "choose", "report"])[np.arange(cells.n_obs) % 5]
        np.testing.assert_array_equal(data.part, expected)


def test_choose_and_report_are_words_of_a_split_too(cells: anndata.AnnData) -> None:
    words = np.array(["train", "choose", "report"])[np.arange(cells.n_obs) % 3]
    data = prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))
    np.testing.assert_array_equal(data.part, words)


def test_without_validation_cells_some_training_cells_are_chosen_by(cells: anndata.AnnData) -> None:
    words = np.where(np.arange(cells.n_obs) % 2, "train", "test")
    data = prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))
    np.testing.assert_array_equal(data.part == "report", words == "test")  # what is held out stays held out
    # half the held-out share of the training cells: 5 % of 160
    assert len(data.rows("choose")) == 8


@pytest.mark.parametrize("seed", range(8))
def test_cells_to_choose_by_never_take_a_labels_only_training_cell(cells: anndata.AnnData, seed: int) -> None:
    """The split as given trains every label; two fifths of its training cells are chosen by, at random."""
    rare = cells.copy()
    rare.obs["rare"] = pd.Categorical(["one", *["many"] * (cells.n_obs - 1)])
    split = dict.fromkeys(cells.obs_names, "train")
    config = small_config(genes="all", concept=("rare",), edge=(), seed=seed, optimisation__held_out=0.8)
    data = prepare(rare, config, split)
    assert len(data.rows("choose")) == 128
    assert data.part[0] == "train"


def test_a_cell_that_the_split_leaves_out_is_named(cells: anndata.AnnData) -> None:
    split = dict.fromkeys(cells.obs_names[:-2], "train")
    with pytest.raises(DataError, match=r"2 cells: 'cell_0318', 'cell_0319'"):
        prepare(cells, ALL_GENES, split)


def test_an_unknown_word_of_the_split_is_named_with_those_allowed(cells: anndata.AnnData) -> None:
    split = dict.fromkeys(cells.obs_names, "train") | {"cell_0003": "dev"}
    with pytest.raises(DataError, match=r"'dev'.*'train'.*'validation'.*'test'"):
        prepare(cells, ALL_GENES, split)


@pytest.mark.parametrize(
    "content",
    [b"name,part\ncell_0000,train\n", b"", b"\x89HDF\r\n\xff\xfe\x00", None],
    ids=["columns", "empty", "not text", "none"],
)
def test_an_unreadable_split_file_is_refused(cells: anndata.AnnData, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="split"):
        prepare(cells, ALL_GENES, path)


def test_a_label_that_no_training_cell_carries_is_named(cells: anndata.AnnData) -> None:
    words = np.where(cells.obs["donor"] == "d2", "test", "train")
    with pytest.raises(UnknownLabelError, match=r"'donor'.*'d2'.*NaN"):
        prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))


def test_too_few_cells_to_hold_any_out_are_refused(cells: anndata.AnnData) -> None:
    with pytest.raises(DataError, match=r"10 cells are too few.*held_out"):
        prepare(cells[:10].copy(), small_config(concept=("stim",), edge=(), genes="all"))


def test_cells_of_which_each_is_the_only_one_of_its_label_are_too_few(cells: anndata.AnnData) -> None:
    """All of them are needed to train on, and none is left to choose by."""
    single = cells[:20].copy()
    single.obs["well"] = [f"w{i}" for i in range(20)]
    with pytest.raises(DataError, match="too few"):
        prepare(single, small_config(concept=("well",), edge=(), genes="all"))


# -- batches -----------------------------------------------------------------------------------------------------------

ROWS = np.arange(100, 403)


def epoch_of(batches: ShuffledBatches, epoch: int) -> list[np.ndarray]:
    batches.set_epoch(epoch)
    return list(batches)


def test_an_epoch_meets_every_row_once_in_batches_of_nearly_one_size() -> None:
    batches = epoch_of(ShuffledBatches(ROWS, 64, seed=0), 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), ROWS)
    sizes = {len(batch) for batch in batches}
    assert min(sizes) >= 64
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == len(ShuffledBatches(ROWS, 64, seed=0))


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    (batch,) = epoch_of(ShuffledBatches(ROWS[:10], 64, seed=0), 0)
    np.testing.assert_array_equal(np.sort(batch), ROWS[:10])


def test_epochs_differ_and_each_is_the_same_again_for_its_seed() -> None:
    first = ShuffledBatches(ROWS, 64, seed=0)
    epochs = [np.concatenate(epoch_of(first, epoch)) for epoch in (0, 1)]
    assert (epochs[0] != epochs[1]).any()
    # a restart in the middle meets what the uninterrupted order would have
    np.testing.assert_array_equal(np.concatenate(epoch_of(ShuffledBatches(ROWS, 64, seed=0), 1)), epochs[1])
    assert (np.concatenate(epoch_of(ShuffledBatches(ROWS, 64, seed=1), 0)) != epochs[0]).any()
