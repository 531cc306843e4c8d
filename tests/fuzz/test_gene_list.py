"""Gene lists: what is read are genes of the data, each once; anything else is told."""

from pathlib import Path
from typing import Any

from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.cells.gene_list import read_gene_list

GENES = ("G1", "G2", "CD4 TotalSeqB", "x", "0", "1", "a,b", '"q"', "#5")
PIECES = st.sampled_from(
    [*GENES, "gene", "X", ",", ";", "\t", "\n", "\r", " ", '"', "'", "#", "NOSUCH", "\0", "\ufeff"]
)
LINES = st.lists(st.lists(st.sampled_from([*GENES, "gene", "", "7"]), min_size=1, max_size=3), max_size=6)


@inputs(1200)
@given(
    st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode())
    | st.tuples(LINES, st.sampled_from(",;\t")).map(lambda t: "\n".join(t[1].join(line) for line in t[0]).encode())
    | st.lists(st.sampled_from([*GENES, "gene", "# note", ""]), max_size=9).map(lambda t: "\n".join(t).encode())
    | st.binary(max_size=60)
)
@example(b"")
@example(b"\xff\xfeG\x001\x00")
@example(b'"G1\nG2')
@example(b"G1,G2\nG2,G1\n")
def test_a_gene_list_is_read_or_told(tmp_path_factory: Any, content: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzzed_genes.txt"
    path.write_bytes(content)
    with tried("gene list"):
        listed = read_gene_list(str(path), GENES)
        assert len(listed) >= 2
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(GENES)
