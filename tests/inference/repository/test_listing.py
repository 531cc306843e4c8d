"""A repository holds what its manifest lists; in the folders that a server reads, nothing else."""

import shutil

import pytest
from paths import MODEL_REPOSITORY
from strangers import ARCHIVED, stranger

from causcell import open_repository
from causcell.errors import CorruptFileError


@pytest.fixture
def copy(tmp_path):
    return stranger(tmp_path / "models")


@pytest.mark.parametrize("repository", [MODEL_REPOSITORY, ARCHIVED], ids=["checked in", "archived"])
def test_what_was_exported_opens(repository):
    assert open_repository(repository).manifest.graphs


@pytest.mark.parametrize(
    "name",
    [
        "scm/1/weights.bin",
        "scm/1/model.onnx.data",
        "scm/2/model.onnx",
        "scm/notes.txt",
        "decoder/1/libops.so",
        "vae/1/model.py",
        "vae/config.pbtxt",
        "model.onnx",
        "libops.so.1",
        "weights.safetensors",
        "config.pbtxt",
        "Model.ONNX",
    ],
)
def test_a_file_that_is_not_listed(copy, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"x")
    with pytest.raises(
        CorruptFileError, match=rf"holds '{name}', which manifest\.json does not list: .*move it elsewhere"
    ):
        open_repository(copy)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "Caddyfile",
        "Dockerfile",
        "kubernetes.yaml",
        "LICENSE",
        ".DS_Store",
        "scm/.DS_Store",
        ".git/index",
        "scm/._1",
    ],
)
def test_documents_and_what_systems_leave_may_lie_beside(copy, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"x")
    assert open_repository(copy).manifest.graphs


@pytest.mark.parametrize("name", ["scm/1/model.onnx", "reference.npz", "scm/config.pbtxt", "reference/config.pbtxt"])
def test_a_listed_file_that_is_a_link_to_outside(copy, tmp_path, name):
    """Its content is right: what it will be when the server reads it nobody knows."""
    shutil.move(copy / name, tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        CorruptFileError, match=rf"{name} is a link to '.*elsewhere', outside the repository; put the file"
    ):
        open_repository(copy)


def test_a_folder_that_is_a_link_to_outside(copy, tmp_path):
    shutil.move(copy / "scm", tmp_path / "elsewhere")
    (copy / "scm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptFileError, match=r"'scm', which manifest\.json does not list|scm.* is a link to"):
        open_repository(copy)


def test_a_repository_may_be_reached_by_a_link(copy, tmp_path):
    (tmp_path / "link").symlink_to(copy)
    assert open_repository(tmp_path / "link").manifest == open_repository(copy).manifest


def test_a_removed_configuration_of_the_carrier_is_missed(copy):
    (copy / "reference" / "config.pbtxt").unlink()
    with pytest.raises(CorruptFileError, match=r"reference/config\.pbtxt is missing; restore it, or export again"):
        open_repository(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "scm/../../x", "scm/1/model.py", "lib.so", "a\\b", ""])
def test_a_manifest_lists_files_of_a_repository_alone(tmp_path, name):
    copy = stranger(tmp_path / "models", change=lambda fields: fields["files"].update({name: "0" * 64}))
    with pytest.raises(CorruptFileError, match=r"files lists '.*', which is no file of a model repository"):
        open_repository(copy)
