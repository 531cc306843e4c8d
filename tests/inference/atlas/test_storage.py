"""What a journal needs of its place, as folders of this machine give it."""

from pathlib import Path

import pytest

from causcell.atlas.records import FileRecord, record_file
from causcell.atlas.storage import FOLDER, LARGEST_RECORD, LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "atlas.zarr")


def test_files_are_put_by_name_and_told_apart_from_the_journals(storage: LocalStorage) -> None:
    with storage.locked():
        staged = storage.work / "values"
        staged.write_bytes(b"values")
        expected = record_file(staged)
        assert storage.put({"X/c/0/0": staged}) == {"X/c/0/0": expected}
        storage.write(f"{FOLDER}/plan.json", b"{}")
        storage.write("zarr.json", b"root")
        assert not staged.exists()
    assert sorted(storage.names()) == ["X/c/0/0", "zarr.json"]
    assert sorted(storage.names(FOLDER)) == [f"{FOLDER}/lock", f"{FOLDER}/plan.json"]
    assert storage.entries() == {"X": True, "zarr.json": False}
    assert storage.record("X/c/0/0") == expected
    with storage.open("X/c/0/0") as file:
        file.seek(2)
        assert file.read() == b"lues"
    assert (storage.read("zarr.json"), storage.size("zarr.json")) == (b"root", 4)
    storage.remove("zarr.json")
    storage.remove_folder("X")
    assert (storage.read("zarr.json"), storage.size("X/c/0/0"), storage.record("X/c/0/0")) == (None, None, None)
    assert storage.entries() == {}


def test_no_link_is_read_and_no_huge_record(storage: LocalStorage, tmp_path: Path) -> None:
    with storage.locked():
        storage.write("zarr.json", b"root")
    (storage.path / "link").symlink_to(storage.path / "zarr.json")
    with pytest.raises(OSError, match="symbolic links"):
        storage.read("link")
    assert (storage.size("link"), storage.record("link"), storage.size(FOLDER)) == (None, None, None)
    with (storage.path / "huge").open("wb") as file:
        file.truncate(LARGEST_RECORD + 1)
    with pytest.raises(ValueError, match="no file of up to"):
        storage.read("huge")
    assert isinstance(storage.record("zarr.json"), FileRecord)
