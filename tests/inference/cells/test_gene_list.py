"""Genes that people name: lists as programs write them, and names to include."""

from pathlib import Path

import pytest

from causcell.cells.gene_list import find_included_genes, read_gene_list
from causcell.errors import ConfigurationError, GenePanelError

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


# -- genes to include --------------------------------------------------------------------------------------------------

GENES = ["CD3D", "CD4", "IFIT1", "IFIT2", "IFIT3", "a,b"]


def test_genes_to_include_are_names_lists_of_names_and_files(tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("gene\nIFIT2\nCD4\n")
    assert find_included_genes(["IFIT3, IFIT1", str(path), "a,b"], GENES) == ["IFIT3", "IFIT1", "IFIT2", "CD4", "a,b"]
    assert find_included_genes([], GENES) == []


def test_a_gene_goes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("CD4").write_text("CD3D\n")
    assert find_included_genes(["CD4"], GENES) == ["CD4"]


@pytest.mark.parametrize("given", ["IFT1", "ifit1,CD4", "no/such/file.txt", "x" * 5000, "CD4\0"])
def test_a_name_that_is_no_gene_is_told(given: str) -> None:
    with pytest.raises(GenePanelError, match=r"1 of \d names of include_genes= are neither genes of"):
        find_included_genes([given], GENES)


def test_the_nearest_gene_is_suggested() -> None:
    with pytest.raises(GenePanelError, match=r"'ifit1'; did you mean 'IFIT1'\? correct them"):
        find_included_genes(["ifit1,CD4"], GENES)


def test_a_file_that_is_no_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").write_bytes(b"\x89HDF\r\n\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"include_genes='.*cells\.h5ad' can't be read as gene names"):
        find_included_genes([str(tmp_path / "cells.h5ad")], GENES)
