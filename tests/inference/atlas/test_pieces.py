"""Pieces of CSR matrices: what is written row by row is read in any part; matrices' chunks are of their stated size."""

import io

import numpy as np
import pytest
import scipy.sparse

from causcell.atlas.journal import Journal
from causcell.atlas.pieces import PieceWriter, piece_file, read_piece
from causcell.atlas.plan import Plan
from causcell.atlas.sharding import ShardFile, read_chunks
from causcell.atlas.source_digests import SourceDigests
from causcell.counterfactual.interventions import Intervention
from causcell.counterfactual.request import Request
from causcell.diffusion.solvers import SolverSettings


def sparse_plan(columns):
    """A plan of a CSR matrix: 23 cells in shards of 8, three rows a cell, chunks of a few nonzero values."""
    titles = ("factual", "stim=IFN", "stim=ctrl")
    return Plan(
        model="0" * 64,
        genes=7,
        cells=23,
        source=SourceDigests(names="", labels="", genes="", values=""),
        request=Request(
            interventions=tuple(Intervention((), title) for title in titles), settings=SolverSettings("draw")
        ),
        arrays={"X": columns},
        batch_size=8,
        threads=1,
        cells_per_shard=8,
        chunk_rows=11,
        layout="csr",
    )


@pytest.mark.parametrize("columns", [7, 2**16, 2**16 + 1], ids=lambda columns: f"{columns} columns")
@pytest.mark.parametrize("at_once", [1, 5, 24], ids=lambda rows: f"{rows} rows at once")
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "CSR"])
def test_a_piece_holds_its_rows(tmp_path, columns, at_once, dense):
    plan = sparse_plan(columns)
    rows = np.random.default_rng(0).random((plan.shard_rows, columns), dtype=np.float32)
    rows[rows > 30 / columns] = 0
    rows[3], rows[:, -1] = 0, 1  # a row of its last column alone
    matrix = scipy.sparse.csr_matrix(rows)
    journal = Journal(tmp_path / "atlas.zarr")
    with journal.locked():
        writer = PieceWriter(journal, plan, "X", 1)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            writer.append(rows[part] if dense else matrix[part])
        writer.finish()
        piece = writer.record(journal.storage.put(writer.files))["X"]
    assert piece.nonzeros == matrix.nnz > plan.chunk_nonzeros
    arrays = {"data": matrix.data, "indices": matrix.indices, "lengths": np.diff(matrix.indptr)}
    for array, values in arrays.items():
        for start in range(0, len(values), 7 * len(values) // 31):
            within = slice(start, min(start + len(values) // 3, len(values)))
            read = np.concatenate(list(read_piece(journal, plan, "X", 1, piece, array, within)))
            np.testing.assert_array_equal(read, values[within])


def test_a_piece_that_lost_its_end_is_told(tmp_path):
    plan = sparse_plan(7)
    journal = Journal(tmp_path / "atlas.zarr")
    with journal.locked():
        writer = PieceWriter(journal, plan, "X", 0)
        writer.append(np.ones((plan.shard_rows, 7), dtype=np.float32))
        writer.finish()
        piece = writer.record(journal.storage.put(writer.files))["X"]
    place = journal.storage.path / piece_file("X", 0)
    place.write_bytes(place.read_bytes()[:-4])
    with pytest.raises(ValueError, match="it is of another size"):
        next(read_piece(journal, plan, "X", 0, piece, "data", slice(0, 5)))


@pytest.mark.parametrize("place", [4, 12], ids=["values", "bytes"])
def test_a_chunk_that_says_another_size_than_it_has_is_refused(tmp_path, place):
    """Blosc would take its word for how many bytes to read, and leave what it does not write as it was."""
    writer = ShardFile("X/data/c/0", tmp_path, "float32", (10,), 1, codec="blosc")
    writer.append(np.arange(10, dtype=np.float32))
    writer.finish()
    content = bytearray(writer.staged.read_bytes())
    (read,) = (values.copy() for values in read_chunks(io.BytesIO(content), "float32", (10,), 1, codec="blosc"))
    np.testing.assert_array_equal(read, np.arange(10))
    content[place] += 4
    with pytest.raises(ValueError, match="a chunk is of another size"):
        list(read_chunks(io.BytesIO(content), "float32", (10,), 1, codec="blosc"))
