"""Ways to choose a number of genes: what each prefers, by which cells, and within which batches."""

import importlib.util
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from short_runs import small_config
from simulation import counts, replaced

from causcell.errors import CausCellWarning, ConfigurationError, DataError, RuntimeUnavailableError
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData, prepare

needs_skmisc = pytest.mark.skipif(
    importlib.util.find_spec("skmisc") is None, reason="scikit-misc (causcell[seurat]) is not installed"
)
SELECTIONS = [
    "dispersion",
    "variance",
    pytest.param("seurat_v3", marks=needs_skmisc),
    "labels",
    "variance_labels",
]


@pytest.fixture(scope="module")
def split(cells: anndata.AnnData) -> dict[str, str]:
    parts = np.where(np.arange(cells.n_obs) % 4, "train", "test")
    return dict(zip(cells.obs_names, parts, strict=True))


@pytest.fixture(scope="module")
def many(cells: anndata.AnnData) -> anndata.AnnData:
    """As many cells with 400 genes, since loess takes that many: 60 with programmes, the others alike in all cells."""
    rng = np.random.default_rng(3)
    plain = rng.poisson(rng.gamma(1.0, 1.0, 340), (cells.n_obs, 340))
    values = sparse.csr_matrix(np.concatenate([counts(cells), plain], axis=1).astype(np.float32))
    return anndata.AnnData(values, obs=cells.obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(400)]))


def panel(given: anndata.AnnData, split: Any = None, **settings: object) -> list[str]:
    return list(prepare(given, small_config(**settings), split).preprocessing.genes)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("number", [30, 250])
def test_as_many_genes_as_asked_in_the_files_order(many: anndata.AnnData, selection: str, number: int) -> None:
    genes = panel(many, genes=number, gene_selection=selection)
    assert len(genes) == number
    assert genes == [gene for gene in many.var_names if gene in set(genes)]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_training_cells_alone_choose(many: anndata.AnnData, split: dict[str, str], selection: str) -> None:
    changed = counts(many)
    held_out = np.array([split[name] == "test" for name in many.obs_names])
    changed[held_out] = np.random.default_rng(0).permutation(changed[held_out].T).T * 3
    before = panel(many, split, genes=30, gene_selection=selection)
    assert panel(replaced(many, changed), split, genes=30, gene_selection=selection) == before
    everything = dict.fromkeys(split, "train") | {many.obs_names[0]: "test"}
    assert panel(replaced(many, changed), everything, genes=30, gene_selection=selection) != before


@pytest.mark.parametrize("rows", [7, 1024])
def test_variance_is_that_of_expression_on_the_log_scale(
    many: anndata.AnnData, split: dict[str, str], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causcell_training.data.reading._READ_ROWS", rows)
    everything = prepare(many, small_config(genes="all"), split)
    variance = everything.expression[everything.rows("train")].toarray().var(axis=0)
    expected = set(many.var_names[np.argsort(-variance)[:30]])
    assert set(panel(many, split, genes=30, gene_selection="variance")) == expected


@needs_skmisc
def test_seurat_v3_is_scanpys(many: anndata.AnnData, split: dict[str, str]) -> None:
    import scanpy

    rows = prepare(many, small_config(genes="all"), split).rows("train")
    found = scanpy.pp.highly_variable_genes(many[rows], flavor="seurat_v3", n_top_genes=40, inplace=False)
    chosen = panel(many, split, genes=40, gene_selection="seurat_v3")
    assert chosen == many.var_names[found["highly_variable"]].tolist()


def planted(cells: anndata.AnnData) -> tuple[anndata.AnnData, list[str]]:
    """Cells in which one quiet gene is raised in each label of ``stim`` and ``cell_type``, and in five rare cells."""
    values = counts(cells)
    values[:, 40:] = np.random.default_rng(1).poisson(0.3, (cells.n_obs, 20))
    obs = cells.obs.copy()
    rare = np.full(cells.n_obs, "common", dtype=object)
    rare[3:8] = "rare"
    obs["rare"] = rare
    marks = [(column, label) for column in ("stim", "cell_type", "rare") for label in sorted(set(obs[column]))]
    for gene, (column, label) in enumerate(marks, 40):
        values[(obs[column] == label).to_numpy(), gene] += 2
    given = anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=cells.var)
    return given, [f"GENE{i}" for i in range(40, 40 + len(marks))]


@pytest.mark.parametrize("selection", ["labels", "variance_labels"])
def test_every_label_of_every_concept_has_its_genes_on_the_panel(cells: anndata.AnnData, selection: str) -> None:
    given, marked = planted(cells)
    concepts = {"concept": ("stim", "cell_type", "rare"), "edge": ()}
    split = dict.fromkeys(given.obs_names, "train") | {given.obs_names[-1]: "test"}
    number = 14 if selection == "labels" else 28
    assert set(marked) <= set(panel(given, split, genes=number, gene_selection=selection, **concepts))
    assert not set(marked) <= set(panel(given, split, genes=number, gene_selection="variance", **concepts))


def test_rare_labels_are_tested_though_cells_are_sampled(
    cells: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, marked = planted(cells)
    monkeypatch.setattr("causcell_training.data.reading._ROWS_FOR_STATISTICS", 60)
    split = dict.fromkeys(given.obs_names, "train") | {given.obs_names[-1]: "test"}
    concepts = {"concept": ("stim", "cell_type", "rare"), "edge": ()}
    for seed in range(5):
        assert marked[-1] in panel(given, split, genes=10, gene_selection="labels", seed=seed, **concepts)


def test_where_labels_differ_in_few_genes_variance_fills_the_panel(cells: anndata.AnnData) -> None:
    rng = np.random.default_rng(0)
    given = replaced(cells, rng.poisson(rng.gamma(1.0, 2.0, cells.n_vars), cells.shape) + 1.0)
    given.obs["chance"] = rng.choice(["a", "b"], cells.n_obs)
    concepts = {"concept": "chance", "edge": ()}
    by_labels = panel(given, genes=40, gene_selection="labels", **concepts)
    by_variance = panel(given, genes=40, gene_selection="variance", **concepts)
    assert len(by_labels) == 40
    assert len(set(by_labels) & set(by_variance)) >= 37


def test_unlabelled_cells_are_left_out_of_comparisons(cells: anndata.AnnData) -> None:
    given = cells.copy()
    given.obs["stim"] = given.obs["stim"].astype(object)
    given.obs.loc[given.obs_names[::3], "stim"] = None
    assert len(panel(given, genes=30, gene_selection="labels")) == 30


# -- batches -----------------------------------------------------------------------------------------------------------


def with_batch_gene(many: anndata.AnnData) -> tuple[anndata.AnnData, str]:
    """Cells of two batches, and a gene that differs between them alone."""
    given = many.copy()
    given.obs["lane"] = np.where(np.arange(many.n_obs) % 2, "one", "two")
    values = counts(many)
    values[:, 70] = np.where(np.arange(many.n_obs) % 2, 4, 0)
    given.X = sparse.csr_matrix(values)
    return given, "GENE70"


@pytest.mark.parametrize("selection", ["dispersion", "variance", pytest.param("seurat_v3", marks=needs_skmisc)])
def test_a_gene_that_differs_between_batches_alone_is_not_chosen_within_them(
    many: anndata.AnnData, selection: str
) -> None:
    given, gene = with_batch_gene(many)
    assert gene in panel(given, genes=40, gene_selection=selection)
    within = panel(given, genes=40, gene_selection=selection, batch_key="lane")
    assert gene not in within
    assert len(within) == 40


def test_batches_too_small_to_tell_are_named_and_left_out(many: anndata.AnnData) -> None:
    given, _ = with_batch_gene(many)
    given.obs["lane"] = np.where(np.arange(many.n_obs) < 6, "tiny", given.obs["lane"])
    everything = dict.fromkeys(given.obs_names, "train") | {given.obs_names[-1]: "test"}
    with pytest.warns(CausCellWarning, match=r"[56] cells of 1 batches of obs\['lane'\].*'tiny'"):
        panel(given, everything, genes=40, gene_selection="variance", batch_key="lane")


def without(given: anndata.AnnData, change: str) -> anndata.AnnData:
    given = given.copy()
    lane = np.where(np.arange(given.n_obs) % 2, "one", "two").astype(object)
    if change == "missing":
        lane[::5] = None
    given.obs["lane"] = np.arange(given.n_obs).astype(str) if change == "single" else lane
    return given


WITHIN_LANES = {"batch_key": "lane", "gene_selection": "variance"}
BY_DEFAULT = {"batch_key": "lane", "gene_selection": TrainConfig.model_fields["gene_selection"].default}


@pytest.mark.parametrize(
    ("settings", "change", "error", "told"),
    [
        ({"batch_key": "lame"}, "", ConfigurationError, r"batch_key='lame' is no column of obs; did you mean 'lane'\?"),
        (WITHIN_LANES, "missing", DataError, r"\d+ of \d+ training cells have no batch in obs\['lane'\]"),
        (WITHIN_LANES, "single", DataError, "has fewer than 8 training cells; name a column of larger ones"),
        (BY_DEFAULT, "", ConfigurationError, "take gene_selection='variance'"),
        ({"batch_key": "lane", "gene_selection": "labels"}, "", ConfigurationError, "compares labels over all cells"),
        ({"batch_key": "lane", "genes": "all"}, "", ConfigurationError, "genes='all' is none; leave one out"),
        ({"gene_selection": "variences"}, "", ConfigurationError, "gene_selection.*variences.*'variance'"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    cells: anndata.AnnData, settings: dict[str, Any], change: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        panel(without(cells, change), **{"genes": 30} | settings)


def test_seurat_v3_without_its_package_says_how_to_come_to_it(
    cells: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailableError, match=r"scikit-misc.*pip install 'causcell\[seurat\]'.*'variance'"):
        panel(cells, genes=30, gene_selection="seurat_v3")


@needs_skmisc
def test_seurat_v3_reads_counts_and_needs_enough_genes(cells: anndata.AnnData, many: anndata.AnnData) -> None:
    logged: TrainingData = prepare(many, small_config(genes="all"))
    given = anndata.AnnData(logged.expression, obs=many.obs, var=many.var)
    with pytest.raises(ConfigurationError, match="reads raw counts, and expression='log1p'"):
        panel(given, genes=30, gene_selection="seurat_v3", expression="log1p")
    with pytest.raises(DataError, match=r"finds no trend of variance with the mean .*gene_selection='variance'"):
        panel(cells[:, :6].copy(), genes=3, gene_selection="seurat_v3")
