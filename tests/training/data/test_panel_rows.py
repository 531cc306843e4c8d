"""Panel expression by rows from a file is what was added, bit for bit."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from causcell.errors import ConfigurationError, DataError, OutputFullError
from causcell_training.data.panel_rows import IN_MEMORY, PanelBuilder, PanelCache, PanelFile, find_cache, matrix_arrays

GENES = 70


@pytest.fixture
def matrix() -> sparse.csr_matrix:
    """Rows of which some, the first and the last among them, are empty."""
    values = sparse.random(500, GENES, 0.1, format="lil", dtype=np.float32, random_state=0)
    values[[0, 7, 8, 499]] = 0
    return values.tocsr()


@pytest.fixture
def file(matrix: sparse.csr_matrix, tmp_path: Path) -> PanelFile:
    panel = PanelFile(tmp_path, GENES)
    for start in range(0, 500, 130):
        panel.add(matrix[start : start + 130])
    return panel


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(120, 300), np.array([499]), np.array([3, 4, 5, 0, 5, 411, 7]), np.empty(0, dtype=np.int64)],
    ids=["all", "slice", "last", "any order", "none"],
)
def test_rows_are_those_that_were_added(matrix: sparse.csr_matrix, file: PanelFile, rows: slice | np.ndarray) -> None:
    taken, expected = file[rows], matrix[rows]
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(taken, part), getattr(expected, part), strict=True)
    assert taken.shape == expected.shape
    assert file.shape == matrix.shape


def test_rows_are_read_while_others_are_added(matrix: sparse.csr_matrix, file: PanelFile) -> None:
    first = file[slice(10, 20)]
    file.add(matrix[:50])
    assert (file[slice(10, 20)] != first).nnz == 0
    assert (file[slice(500, 550)] != matrix[:50]).nnz == 0


def test_a_panel_of_many_genes_has_wider_places(tmp_path: Path) -> None:
    row = sparse.csr_matrix((np.float32([1, 2]), ([0, 0], [5, 70_000])), shape=(1, 70_001))
    panel = PanelFile(tmp_path, 70_001)
    panel.add(row)
    assert (panel[slice(0, 1)] != row).nnz == 0


def test_the_arrays_are_the_same_bytes_from_memory_and_from_the_file(
    matrix: sparse.csr_matrix, file: PanelFile
) -> None:
    memory, disk = (b"".join(array.tobytes() for array in matrix_arrays(each)) for each in (matrix, file))
    assert memory == disk


@pytest.mark.parametrize("least", [0, 5000, 2**40])
def test_rows_move_to_the_file_beyond_a_size(matrix: sparse.csr_matrix, tmp_path: Path, least: int) -> None:
    builder = PanelBuilder(GENES, PanelCache(tmp_path, least))
    for start in range(0, 500, 100):
        builder.add(matrix[start : start + 100])
    rows = builder.finish()
    assert isinstance(rows, PanelFile) == (least < 2**40)
    assert (rows[np.arange(500)] != matrix).nnz == 0


def test_the_file_has_no_name_and_leaves_nothing(file: PanelFile, tmp_path: Path) -> None:
    assert file.shape == (500, GENES)
    assert not any(tmp_path.iterdir())


def test_a_file_that_was_cut_is_told(file: PanelFile) -> None:
    os.ftruncate(file._file.fileno(), 100)
    with pytest.raises(DataError, match="shorter than what was written; train again"):
        file[slice(None)]


def test_a_full_disk_is_told_with_its_remedy(matrix: sparse.csr_matrix, file: PanelFile, tmp_path: Path) -> None:
    class Full:
        """A file on a disk without space."""

        def write(self, data: memoryview) -> int:
            raise OSError(28, "No space left on device")

        def tell(self) -> int:
            return 2_000_000

    file._file = Full()  # type: ignore[assignment]
    with pytest.raises(
        OutputFullError,
        match=r"no space left in .* takes 6 bytes for each value that is not zero: 500 cells took 2 MB; .*\(cache=\)",
    ):
        file.add(matrix)


def test_where_the_file_is_made(tmp_path: Path) -> None:
    out = tmp_path / "not yet" / "run"
    assert find_cache("disk", out) == PanelCache(tmp_path, 0)
    assert find_cache("auto", out) == PanelCache(tmp_path, IN_MEMORY)
    assert find_cache("memory", out).least > 2**50
    assert find_cache(tmp_path, out) == PanelCache(tmp_path, 0)
    with pytest.raises(ConfigurationError, match=r"cache='nowhere' is no folder; .*'auto', 'memory' or 'disk'"):
        find_cache("nowhere", out)
