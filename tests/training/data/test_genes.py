"""The gene panel: as many as asked, or as listed."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from short_runs import small_config
from simulation import counts, replaced

from causcell.errors import CausCellError, ConfigurationError, GenePanelError
from causcell_training.data.cells import prepare
from causcell_training.data.genes import read_gene_list

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


LISTS = {
    "lines": b"CD4 TotalSeqB\nG2\nG3\n",
    "byte order mark": b"\xef\xbb\xbfCD4 TotalSeqB\r\nG2\r\nG3\r\n",
    "UTF-16": "CD4 TotalSeqB\nG2\nG3\n".encode("utf-16"),
    "comments": b"# my panel\n\n  CD4 TotalSeqB \nG2\n# more\nG3",
    "head": b"gene\nCD4 TotalSeqB\nG2\nG3\n",
    "R's write.csv without row names": b'"x"\n"CD4 TotalSeqB"\n"G2"\n"G3"\n',
    "R's write.csv": b'"","x"\n"1","CD4 TotalSeqB"\n"2","G2"\n"3","G3"\n',
    "pandas": b",0\n0,CD4 TotalSeqB\n1,G2\n2,G3\n",
    "var.to_csv": b",n_cells;x\nCD4 TotalSeqB,5\nG2,7\nG3,1\n",
    "semicolons": b"gene;score\nCD4 TotalSeqB;1,5\nG2;2\nG3;3\n",
    "tabs": b"CD4 TotalSeqB\t1\nG2\t2\nG3\t3\n",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_gene_lists_are_read_as_programs_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "genes").write_bytes(content)
    known = ["G1", "G2", "CD4 TotalSeqB", "G3"]
    assert read_gene_list(str(tmp_path / "genes"), known) == ["CD4 TotalSeqB", "G2", "G3"]


def test_genes_on_one_line_are_words(tmp_path: Path) -> None:
    (tmp_path / "genes").write_text("G1 G2\nG3\n")
    assert read_gene_list(str(tmp_path / "genes"), ["G3", "G2", "G1"]) == ["G1", "G2", "G3"]


def test_a_gene_called_like_a_head_is_a_gene(tmp_path: Path) -> None:
    (tmp_path / "genes").write_text("x\nG1\n")
    assert read_gene_list(str(tmp_path / "genes"), ["G1", "x"]) == ["x", "G1"]


def test_a_table_with_genes_in_two_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "genes").write_text("G1,G2\nG2,G3\n")
    with pytest.raises(ConfigurationError, match="2 of its columns hold genes"):
        read_gene_list(str(tmp_path / "genes"), ["G1", "G2", "G3"])


def test_a_gene_in_other_case_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "genes").write_text("CD4\nG1\n")
    with pytest.raises(GenePanelError, match=r"1 of 2 genes .* not in the data: 'CD4'; did you mean 'Cd4'\? leave"):
        read_gene_list(str(tmp_path / "genes"), ["G1", "Cd4"])


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
