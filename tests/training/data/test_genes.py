"""The gene panel: as many as asked, or as listed."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from short_runs import small_config
from simulation import counts, replaced

from causcell.errors import CausCellError, ConfigurationError, GenePanelError
from causcell_training.data.cells import prepare

ALL_GENES = small_config(genes="all")


@pytest.mark.parametrize("number", [2, 20, 45, 50, 59])
def test_as_many_highly_variable_genes_as_asked_in_the_files_order(cells: anndata.AnnData, number: int) -> None:
    genes = list(prepare(cells, small_config(genes=number)).preprocessing.genes)
    assert len(genes) == number
    assert genes == [gene for gene in cells.var_names if gene in set(genes)]


def test_genes_that_vary_are_preferred(cells: anndata.AnnData) -> None:
    """Genes that hold the same share of every cell's counts are never among the most variable."""
    flat = counts(cells)
    flat[:, 10:20] = 0
    chosen = prepare(replaced(cells, flat), small_config(genes=30)).preprocessing.genes
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


# -- genes that are on the panel anyhow, and genes that var marks ------------------------------------------------------


def test_genes_to_include_are_within_the_number_and_the_last_chosen_make_room(cells: anndata.AnnData) -> None:
    alone = set(prepare(cells, small_config(genes=30)).preprocessing.genes)
    included = [gene for gene in cells.var_names if gene not in alone][:4]
    panel = prepare(cells, small_config(genes=30, include_genes=included)).preprocessing.genes
    assert len(panel) == 30
    assert set(included) < set(panel)
    assert len(alone & set(panel)) == 26
    assert list(panel) == [gene for gene in cells.var_names if gene in set(panel)]


def test_genes_to_include_are_added_to_a_list_and_to_marked_genes(cells: anndata.AnnData, tmp_path: Path) -> None:
    path = tmp_path / "genes.txt"
    path.write_text("GENE7\nGENE3\n")
    config = small_config(genes=str(path), include_genes="GENE9,GENE3")
    assert prepare(cells, config).preprocessing.genes == ("GENE7", "GENE3", "GENE9")
    marked = cells.copy()
    marked.var["highly_variable"] = np.isin(np.arange(60), [8, 2])
    config = small_config(genes="highly_variable", include_genes="GENE5")
    assert prepare(marked, config).preprocessing.genes == ("GENE2", "GENE5", "GENE8")


def test_more_genes_to_include_than_the_panel_has_are_refused(cells: anndata.AnnData) -> None:
    with pytest.raises(ConfigurationError, match=r"include_genes= names 3 genes.*is to have 2; take genes=3 or more"):
        prepare(cells, small_config(genes=2, include_genes="GENE1,GENE2,GENE3"))


@pytest.mark.filterwarnings("ignore:Writing zarr v2")  # anndata, of what it will do one day
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_marked_genes_are_the_panel_from_memory_and_from_files(
    cells: anndata.AnnData, tmp_path: Path, suffix: str
) -> None:
    marked = cells.copy()
    marked.var["highly_variable"] = np.arange(60) % 3 == 0
    path = tmp_path / f"cells.{suffix}"
    getattr(marked, f"write_{suffix}")(path)
    expected = tuple(cells.var_names[::3])
    assert prepare(marked, small_config(genes="highly_variable")).preprocessing.genes == expected
    assert prepare(path, small_config(genes="highly_variable")).preprocessing.genes == expected


def test_marked_genes_of_raw_are_those_of_raw(cells: anndata.AnnData) -> None:
    both = cells.copy()
    both.var["highly_variable"] = np.arange(60) < 5
    both.raw = both
    both.var["highly_variable"] = np.arange(60) < 9
    assert len(prepare(both, small_config(genes="highly_variable", raw=True)).preprocessing.genes) == 5


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        (None, "var has no column 'highly_variable'; run scanpy"),
        (np.arange(60.0), "holds more than true and false"),
        (np.arange(60) == 3, "marks 1 genes"),
    ],
    ids=["none", "numbers", "one"],
)
def test_marks_that_make_no_panel_are_told(cells: anndata.AnnData, marks: np.ndarray | None, told: str) -> None:
    marked = cells.copy()
    if marks is not None:
        marked.var["highly_variable"] = marks
    with pytest.raises(GenePanelError, match=told):
        prepare(marked, small_config(genes="highly_variable"))
