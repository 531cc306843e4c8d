"""A model of a hub is the model that was pushed, bit for bit, or a message says why it can't be had."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import check_missing, without_package
from false_hub import FalseHub, Repo, use_hub
from paths import MODEL_REPOSITORY
from strangers import stranger

from causcell import Generator, open_repository
from causcell.engine.open import open_engine
from causcell.engine.triton.connection import Connection
from causcell.errors import (
    ConfigurationError,
    CorruptFileError,
    DigestError,
    HubError,
    RuntimeUnavailableError,
    SchemaVersionError,
)
from causcell.repository import hub as hubs
from causcell.repository.hub import HubName, is_hub_name, pin_revision, repository_folder
from causcell.repository.manifest import SCHEMA_VERSION
from causcell.repository.sharing import Pushed, push
from causcell.serve.server import TritonServer

NAME = "hf://lab/pbmc"


def cells():
    scanpy = pytest.importorskip("scanpy", reason="takes causcell[evaluate]")
    return scanpy.datasets.pbmc68k_reduced().raw.to_adata()[:40]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://lab/kang", HubName("lab", "kang")),
        ("HF://lab/kang", HubName("lab", "kang")),
        ("hf://lab/kang@v1.0", HubName("lab", "kang", "v1.0")),
        ("hf://lab/kang@refs/pr/3", HubName("lab", "kang", "refs/pr/3")),
        ("hf://a-lab/Kang_2.1", HubName("a-lab", "Kang_2.1")),
        (Path("hf://lab/kang@v1"), HubName("lab", "kang", "v1")),
    ],
)
def test_a_name(text, name):
    assert is_hub_name(text)
    assert HubName.parse(text) == name == HubName.parse(str(name))


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://kang",
        "hf://lab/",
        "hf://lab/kang/",
        "hf://lab/kang/scm",
        "hf://datasets/lab/kang",
        "hf://lab/kang@",
        "hf://lab/kang@../main",
        "hf://lab/kang@/etc/passwd",
        "hf://../kang",
        "hf://lab/..",
        "hf://lab/a--b",
        "hf://lab/kang.git",
        "hf://lab/kang.",
        "hf://-lab/kang",
        "hf://lab/ka ng",
        "hf://lab/käng",
        "hf://me:secret@lab/kang",
        "hf://lab/kang?revision=v1",
        "lab/kang",
    ],
)
def test_a_name_of_another_form(text):
    with pytest.raises(
        ConfigurationError, match=r"models='.*' names no model on a hub; give hf://OWNER/NAME, with @REV"
    ):
        HubName.parse(text)


@pytest.mark.parametrize("opened", [Generator.open, open_repository, open_engine, TritonServer, repository_folder])
def test_whatever_opens_a_repository_says_so(opened):
    with pytest.raises(ConfigurationError, match=r"models='hf://lab' names no model on a hub"):
        opened("hf://lab")


def test_a_connection_is_for_servers():
    with pytest.raises(ConfigurationError, match="is a model on a hub; a connection is for servers"):
        open_engine(NAME, connection=Connection())


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_without_the_extra(command, tmp_path):
    words = ["--out", tmp_path / "speed.json"] if command == "bench" else []
    done = without_package("huggingface_hub", command, NAME, *words)
    check_missing(done, "hf://lab/pbmc needs the package huggingface_hub; install causcell[hub]")


def test_a_folder_needs_no_extra(monkeypatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(hubs, "import_module", absent)
    assert open_repository(MODEL_REPOSITORY).manifest.graphs
    with pytest.raises(RuntimeUnavailableError, match=r"install causcell\[hub\]"):
        open_repository(NAME)


# -- what is opened ----------------------------------------------------------------------------------------------------


def test_predictions_are_equal_bit_for_bit(shared: Pushed):
    found = []
    for location in (MODEL_REPOSITORY, NAME, shared.name):
        with Generator.open(location, threads=1) as generator:
            found.append(generator.counterfactual(cells(), do={"phase": "S"}, seed=3))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].X, other.X)
        assert found[0].obs.equals(other.obs)
        assert found[0].uns["causcell"] == other.uns["causcell"]


def test_every_file_is_what_was_pushed(shared: Pushed):
    folder = open_repository(NAME).path
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert len(names) == shared.files - 1  # the card stays on the hub
    for name in names:
        assert (folder / name).read_bytes() == (MODEL_REPOSITORY / name).read_bytes()


def test_what_is_in_the_cache_is_not_asked_for_again(hub: FalseHub, shared: Pushed):
    open_repository(NAME)
    hub.asked.clear()
    open_repository(shared.name)
    assert hub.asked == []
    open_repository(NAME)
    assert hub.asked == ["HEAD /lab/pbmc/resolve/main/manifest.json"]


def test_a_download_opens_by_its_path_too(shared: Pushed):
    """Its files are links into the cache, which are refused in any other folder."""
    folder = repository_folder(NAME)
    assert (folder / "manifest.json").is_symlink()
    assert open_repository(folder).manifest == open_repository(MODEL_REPOSITORY).manifest
    with contextlib.closing(TritonServer(NAME)) as server:
        assert server.repository == folder


def test_a_document_in_the_cache_may_lie_beside(shared: Pushed):
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download("lab/pbmc"))
    assert (folder / "README.md").is_symlink()
    assert open_repository(folder) is not None


def test_other_processes_open_the_commit_that_this_one_opened(hub: FalseHub, shared: Pushed, tmp_path: Path):
    with Generator.open(NAME, threads=1) as generator:
        other = stranger(tmp_path / "other", change=lambda fields: fields["provenance"].update(note="other"))
        later = push(other, NAME, license="cc-by-4.0")
        assert later.name != shared.name
        assert generator.source is not None
        assert generator.source.location == shared.name
        again = generator.source.open(threads=1, batch_size=256)
        assert again.engine.manifest == generator.manifest
        again.engine.close()
    assert open_repository(NAME).manifest.provenance["note"] == "other"
    assert pin_revision(NAME) == later.name
    assert pin_revision(shared.name) == shared.name


def test_a_branch_or_tag(hub: FalseHub, shared: Pushed, tmp_path: Path):
    hub.repos["lab/pbmc"].refs["v1"] = shared.name.partition("@")[2]
    push(stranger(tmp_path / "other"), NAME, license="cc-by-4.0")
    assert pin_revision(f"{NAME}@v1") == shared.name
    assert open_repository(f"{NAME}@v1").manifest == open_repository(MODEL_REPOSITORY).manifest


def test_without_a_network_the_cache_is_enough(shared: Pushed, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    first = open_repository(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_repository(NAME).manifest == first.manifest
    assert open_repository(shared.name).path == first.path
    with pytest.raises(HubError, match=r"hf://lab/other is not whole in the cache of huggingface_hub, and HF_HUB_OFFL"):
        open_repository("hf://lab/other")


def test_a_part_of_a_download_is_no_model_without_a_network(shared: Pushed, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    (repository_folder(NAME) / "scm/1/model.onnx").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"pbmc is not whole in the cache of huggingface_hub, and HF_HUB_OFFLINE is set"):
        open_repository(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert open_repository(NAME).manifest.graphs  # made whole


# -- what is not -------------------------------------------------------------------------------------------------------


def test_no_such_model(hub: FalseHub):
    with pytest.raises(
        HubError, match=r"hf://lab/nothing is not there, or not open to this user, at http.*check owner and name"
    ):
        Generator.open("hf://lab/nothing")


def test_no_such_revision(shared: Pushed):
    with pytest.raises(HubError, match=r"has no branch, tag or commit 'v9' of it; leave it out for main"):
        open_repository(f"{NAME}@v9")


def test_a_private_model_needs_a_token(hub: FalseHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    push(MODEL_REPOSITORY, NAME, license="cc-by-4.0", private=True)
    use_hub(monkeypatch, hub.address, tmp_path / "stranger", token=None)
    with pytest.raises(HubError, match=r"not open to this user.*log in with `hf auth login`, or set HF_TOKEN"):
        open_repository(NAME)
    use_hub(monkeypatch, hub.address, tmp_path / "owner")
    assert open_repository(NAME).manifest.graphs


def test_no_hub(hub: FalseHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Before its version 1.33 huggingface_hub gives another reason than the refused connection."""
    at_once = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", at_once)  # which waits between its tries
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "home")
    with pytest.raises(
        HubError, match=r"hf://lab/pbmc .*http://127\.0\.0\.1:9 (can't be reached|and huggingface_hub say)"
    ):
        open_repository(NAME)


def test_a_repository_of_something_else(hub: FalseHub):
    hub.repos["lab/other"] = Repo()
    hub.repos["lab/other"].commit({"config.json": b"{}", "model.safetensors": b"x" * 20_000})
    with pytest.raises(CorruptFileError, match=r"hf://lab/other is no model repository: it has no manifest\.json"):
        open_repository("hf://lab/other")
    assert not any("safetensors" in each for each in hub.asked)


@pytest.mark.parametrize("name", ["scm/1/model.onnx", "reference.npz", "scm/config.pbtxt"])
def test_a_file_that_was_tampered_with(hub: FalseHub, shared: Pushed, name: str):
    hub.change("lab/pbmc", {name: hub.files("lab/pbmc")[name] + b" "})
    with pytest.raises(
        DigestError, match=rf"hf://lab/pbmc, as it was downloaded: .*{name} is not the file that was exported.*remove "
    ):
        open_repository(NAME)
    assert open_repository(shared.name).manifest.graphs  # the commit is what it was


def test_a_manifest_that_was_tampered_with(hub: FalseHub, shared: Pushed):
    content = hub.files("lab/pbmc")["manifest.json"]
    hub.change("lab/pbmc", {"manifest.json": content.replace(b'"draw"', b'"mean"', 1)})
    with pytest.raises((DigestError, CorruptFileError), match=r"manifest\.json of hf://lab/pbmc "):
        open_repository(NAME)


def test_a_carrier_of_another_manifest(hub: FalseHub, shared: Pushed):
    content = hub.files("lab/pbmc")["reference/config.pbtxt"]
    hub.change("lab/pbmc", {"reference/config.pbtxt": content.replace(b"phase", b"phrase")})
    with pytest.raises(DigestError, match=r"hf://lab/pbmc, as it was downloaded: .*tells clients of a server"):
        open_repository(NAME)


def test_a_file_that_the_hub_lacks(hub: FalseHub, shared: Pushed):
    hub.change("lab/pbmc", {"scm/1/model.onnx": None})
    with pytest.raises(
        CorruptFileError, match=r"hf://lab/pbmc has no scm/1/model\.onnx, which its manifest\.json lists"
    ):
        open_repository(NAME)


def test_a_file_that_is_not_listed_is_not_downloaded(hub: FalseHub, shared: Pushed):
    hub.change("lab/pbmc", {"scm/1/libops.so": b"x", "weights.safetensors": b"x", "figures/umap.png": b"x"})
    folder = open_repository(NAME).path
    assert not (folder / "scm/1/libops.so").exists()
    assert not any(word in each for each in hub.asked for word in ("libops", "weights", "umap"))


def test_a_newer_form_is_not_downloaded(hub: FalseHub, shared: Pushed):
    fields = json.loads(hub.files("lab/pbmc")["manifest.json"])
    fields["schema_version"] = SCHEMA_VERSION + 1
    hub.change("lab/pbmc", {"manifest.json": json.dumps(fields).encode()})
    with pytest.raises(
        SchemaVersionError, match=r"manifest\.json of hf://lab/pbmc has schema version .*update causcell"
    ):
        open_repository(NAME)
    assert not any("onnx" in each for each in hub.asked if "/resolve/" in each)


def test_a_copy_in_the_cache_that_was_damaged(shared: Pushed):
    """It is told, and what the message says helps."""
    file = (repository_folder(NAME) / "scm/1/model.onnx").resolve()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DigestError, match=r"remove (?P<place>\S+) to have it downloaded again") as told:
        open_repository(NAME)
    shutil.rmtree(str(told.value).partition("; or remove ")[2].partition(" to have")[0])
    assert open_repository(NAME).manifest.graphs


@pytest.mark.parametrize("through_a_copy", [False, True])
def test_a_link_in_the_cache_that_leaves_it(shared: Pushed, tmp_path: Path, through_a_copy: bool):
    """Only to the cache's own copies may links lead, and these not out of the cache."""
    file = repository_folder(NAME) / "scm/1/model.onnx"
    shutil.copy(file, tmp_path / "elsewhere")
    link = file.parent / file.readlink() if through_a_copy else file
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptFileError, match=r"is a link to '.*elsewhere', outside the repository"):
        open_repository(NAME)


def test_copies_that_downloads_share(shared: Pushed):
    """As newer versions of huggingface_hub lay them: a copy is a link to ``blobs`` of the whole cache."""
    file = repository_folder(NAME) / "scm/1/model.onnx"
    copy = file.parent / file.readlink()
    store = copy.parents[2] / "blobs" / "ab"
    store.mkdir(parents=True)
    copy.resolve().rename(store / "copy")
    copy.symlink_to(store / "copy")
    assert open_repository(NAME).manifest.graphs


def test_a_folder_in_the_cache_that_is_a_link(shared: Pushed):
    """A server would take it for a model."""
    root = repository_folder(NAME)
    folder = root.parents[1] / "blobs" / "folder"
    folder.mkdir()
    (folder / "config.pbtxt").write_text('name: "vae"')
    (root / "vae").symlink_to(folder)
    with pytest.raises(CorruptFileError, match=r"holds 'vae', which manifest\.json does not list"):
        open_repository(NAME)
