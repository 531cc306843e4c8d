import pytest

from causcell._internal.reading import read_bounded
from causcell.errors import ConfigurationError, CorruptFileError


def test_no_more_than_the_limit_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(CorruptFileError, match=r"file' is larger than 4 bytes, the most that is read"):
        read_bounded(tmp_path / "file", 4)


def test_a_file_that_states_no_size_is_bounded_too():
    from pathlib import Path

    with pytest.raises(CorruptFileError, match="larger than 0 bytes"):
        read_bounded(Path("/proc/self/status"), 0)


@pytest.mark.parametrize("name", ["absent", ".", "a\0b"])
def test_what_can_not_be_read(tmp_path, name):
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_bounded(tmp_path / name, 10, ConfigurationError)
