"""A push sends what the manifest lists and a card, in one commit, or says why it can't."""

import shutil
from pathlib import Path

import pytest
from false_hub import FalseHub, Repo, use_hub
from paths import MODEL_REPOSITORY
from strangers import stranger

import causcell
from causcell import open_repository
from causcell.errors import ConfigurationError, CorruptFileError, DigestError, HubError
from causcell.repository.model_card import card_license
from causcell.repository.sharing import Pushed, prepare_push, push

NAME = "hf://lab/pbmc"


def test_the_hub_has_what_the_manifest_lists_and_a_card(hub: FalseHub, shared: Pushed):
    files = hub.files("lab/pbmc")
    listed = set(open_repository(MODEL_REPOSITORY).manifest.files)
    assert set(files) == listed | {"manifest.json", "reference/config.pbtxt", "README.md", ".gitattributes"}
    assert shared.files == len(files) - 1
    assert shared.size == sum(len(content) for name, content in files.items() if name != ".gitattributes")
    assert not hub.repos["lab/pbmc"].private
    for name in files.keys() - {"README.md", ".gitattributes"}:
        assert files[name] == (MODEL_REPOSITORY / name).read_bytes()
    card = files["README.md"].decode()
    assert card_license(card) == "cc-by-4.0"
    assert "Serving this repository" not in card  # which is what README.md of the folder is
    assert "10x Genomics, PBMC" in card


def test_it_is_one_commit_named_by_what_is_returned(hub: FalseHub, shared: Pushed):
    repo = hub.repos["lab/pbmc"]
    assert len(repo.commits) == 2  # the hub's own first one, and the push
    assert shared.name == f"hf://lab/pbmc@{repo.refs['main']}"
    assert shared.url == f"{hub.address}/lab/pbmc/commit/{repo.refs['main']}"


def test_the_same_model_again_is_the_same_commit(hub: FalseHub, shared: Pushed):
    again = push(MODEL_REPOSITORY, NAME, license="cc-by-4.0", data="10x Genomics, PBMC")
    assert again == shared
    assert len(hub.repos["lab/pbmc"].commits) == 2


def test_another_model_leaves_nothing_of_the_earlier_one(hub: FalseHub, shared: Pushed, tmp_path: Path):
    """The checkout's model has graphs that the archived one lacks; what others put beside stays."""
    hub.change("lab/pbmc", {"LICENSE": b"terms", "figures/umap.png": b"x"})
    before = set(hub.files("lab/pbmc"))
    other = stranger(tmp_path / "other")
    push(other, NAME, license="cc0-1.0")
    found = hub.files("lab/pbmc")
    gone = before - set(found)
    assert gone
    assert all(each.startswith(("abduction/", "slab/")) for each in gone)
    assert {"LICENSE", "figures/umap.png", ".gitattributes"} <= set(found)
    assert open_repository(NAME).manifest == open_repository(other).manifest
    assert card_license(found["README.md"].decode()) == "cc0-1.0"


def test_a_private_one(hub: FalseHub):
    push(MODEL_REPOSITORY, NAME, license="cc-by-4.0", private=True)
    assert hub.repos["lab/pbmc"].private
    push(MODEL_REPOSITORY, NAME, license="cc-by-4.0")
    assert hub.repos["lab/pbmc"].private  # as it was


def test_a_public_one_is_not_taken_for_a_private_one(hub: FalseHub):
    hub.repos["lab/pbmc"] = Repo()
    hub.repos["lab/pbmc"].commit({})
    with pytest.raises(HubError, match=r"hf://lab/pbmc is public on http.*private=True was asked for; make it private"):
        push(MODEL_REPOSITORY, NAME, license="cc-by-4.0", private=True)
    assert hub.files("lab/pbmc") == {}


def test_a_card_of_ones_own(hub: FalseHub, tmp_path: Path):
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# Mine\n")
    push(MODEL_REPOSITORY, NAME, card=card)
    assert hub.files("lab/pbmc")["README.md"] == card.read_bytes()


# -- what is not sent --------------------------------------------------------------------------------------------------


@pytest.fixture
def silent(hub: FalseHub):
    """A hub that is not asked for anything."""
    yield hub
    assert hub.asked == []


def test_a_licence_is_asked_for(silent: FalseHub):
    with pytest.raises(ConfigurationError, match=r"license= is missing.*such as license='cc-by-4\.0'"):
        push(MODEL_REPOSITORY, NAME, data="10x")


@pytest.mark.parametrize("license", ["", "CC BY 4.0", "cc-by-4.0\nprivate: true", "../x", "x" * 65])
def test_a_licence_of_another_form(silent: FalseHub, license: str):
    with pytest.raises(ConfigurationError, match=r"is no licence as a hub names it: lower case, such as cc-by-4\.0"):
        push(MODEL_REPOSITORY, NAME, license=license)


def test_a_licence_that_the_hub_does_not_know(hub: FalseHub):
    with pytest.raises(HubError, match=r"hf://lab/pbmc is not taken by http.*\"license\" must be one of"):
        push(MODEL_REPOSITORY, NAME, license="mine")
    assert list(hub.files("lab/pbmc")) == [".gitattributes"]


def test_a_card_and_what_goes_into_one(silent: FalseHub, tmp_path: Path):
    (tmp_path / "card.md").write_text("---\nlicense: apache-2.0\n---\n")
    with pytest.raises(ConfigurationError, match=r"write them into card='.*card\.md'"):
        push(MODEL_REPOSITORY, NAME, card=tmp_path / "card.md", license="cc-by-4.0")


@pytest.mark.parametrize("text", ["# Mine\n", "---\ntags: []\n---\nlicense: cc0-1.0\n", "", "license: cc0-1.0\n"])
def test_a_card_without_a_licence(silent: FalseHub, tmp_path: Path, text: str):
    (tmp_path / "card.md").write_text(text)
    with pytest.raises(ConfigurationError, match=r"card='.*card\.md' names no licence; begin it with"):
        push(MODEL_REPOSITORY, NAME, card=tmp_path / "card.md")


def test_a_card_that_is_not_there(silent: FalseHub, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"card\.md' can't be read"):
        push(MODEL_REPOSITORY, NAME, card=tmp_path / "card.md")


@pytest.mark.parametrize("name", ["lab/pbmc", "hf://pbmc", "s3://lab/pbmc", "hf://lab/pbmc/scm"])
def test_a_name_of_another_form(silent: FalseHub, name: str):
    with pytest.raises(ConfigurationError, match=r"name='.*' names no model on a hub; give hf://OWNER/NAME"):
        push(MODEL_REPOSITORY, name, license="cc-by-4.0")


def test_a_revision(silent: FalseHub):
    with pytest.raises(ConfigurationError, match=r"has a revision; a push makes a commit of main: leave @\.\.\. out"):
        push(MODEL_REPOSITORY, f"{NAME}@v1", license="cc-by-4.0")


def test_what_is_on_a_hub_already(silent: FalseHub):
    with pytest.raises(ConfigurationError, match=r"folder='hf://lab/other' is shared already"):
        push("hf://lab/other", NAME, license="cc-by-4.0")


def test_a_folder_that_is_no_repository_or_a_damaged_one(silent: FalseHub, tmp_path: Path):
    with pytest.raises(CorruptFileError, match=r"is no model repository"):
        push(tmp_path, NAME, license="cc-by-4.0")
    copy = shutil.copytree(MODEL_REPOSITORY, tmp_path / "copy")
    (copy / "reference.npz").write_bytes(b"")
    with pytest.raises(DigestError, match=r"reference\.npz is not the file that was exported"):
        push(copy, NAME, license="cc-by-4.0")


def test_preparing_asks_no_hub(silent: FalseHub):
    package = prepare_push(MODEL_REPOSITORY, NAME, license="cc-by-4.0")
    assert package.files[0] == "manifest.json"
    assert "hf://lab/pbmc" in package.card


@pytest.mark.parametrize("token", [None, "hf_of_another"])
def test_without_a_token(hub: FalseHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str | None):
    use_hub(monkeypatch, hub.address, tmp_path / "stranger", token=token)
    with pytest.raises(HubError, match=r"Invalid username or password.*log in with `hf auth login`, or set HF_TOKEN"):
        push(MODEL_REPOSITORY, NAME, license="cc-by-4.0")
    assert hub.repos == {}


def test_below_a_name_of_others(hub: FalseHub):
    with pytest.raises(
        HubError, match=r"hf://others/pbmc is not there, or not open to this user.*don't have the rights"
    ):
        push(MODEL_REPOSITORY, "hf://others/pbmc", license="cc-by-4.0")


def test_it_is_public():
    assert causcell.push is push
