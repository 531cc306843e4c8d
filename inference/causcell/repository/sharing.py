"""Share a model repository on a Hugging Face hub: one commit of what the manifest lists, and a model card."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from causcell._internal.files import local_path
from causcell._internal.reading import read_bounded
from causcell.errors import ConfigurationError, HubError
from causcell.repository.folder import open_repository
from causcell.repository.hub import HubName, caller, is_hub_name, telling
from causcell.repository.manifest import MANIFEST_FILE, Manifest
from causcell.repository.model_card import CARD_FILE, card_license, model_card
from causcell.repository.served import CARRIER_CONFIG

_LARGEST_CARD = 2**20

_OF_MODELS = ("reference.npz", "*/config.pbtxt", "*/configs/*.pbtxt", "*/1/model.onnx", "*/1/model.pt")
"""Names of a repository's files. What an earlier push left under such a name goes; other documents of a hub stay."""


@dataclass(frozen=True)
class Package:
    """Content of a push.

    Attributes
    ----------
    folder
        The repository.
    name
        Where it goes.
    manifest
        What the model is.
    card
        Text of the model card.
    """

    folder: Path
    name: HubName
    manifest: Manifest
    card: str

    @property
    def files(self) -> list[str]:
        """Paths of the repository's files, the manifest first; the card is not among them."""
        carrier = [CARRIER_CONFIG] if (self.folder / CARRIER_CONFIG).is_file() else []
        return [MANIFEST_FILE, *sorted({*self.manifest.files, *carrier})]

    @property
    def size(self) -> int:
        """Bytes of all files and the card."""
        return sum((self.folder / name).stat().st_size for name in self.files) + len(self.card.encode())


@dataclass(frozen=True)
class Pushed:
    """A model that was shared.

    Attributes
    ----------
    name
        By which anyone opens this very version, ``hf://OWNER/NAME@COMMIT``.
    url
        Its commit on the hub.
    files, size
        Number of files and bytes of the version.
    """

    name: str
    url: str
    files: int
    size: int


def prepare_push(
    folder: str | os.PathLike[str],
    name: str,
    *,
    license: str | None = None,
    data: str | None = None,
    card: str | os.PathLike[str] | None = None,
) -> Package:
    """Check a model repository and write its card; nothing is sent, and no hub is asked.

    Parameters
    ----------
    folder, name, license, data, card
        See `push`.

    Raises
    ------
    ConfigurationError, ModelRepositoryError
        See `push`.
    """
    if is_hub_name(folder):
        raise ConfigurationError(f"folder={os.fspath(folder)!r} is shared already; give the folder of a repository")
    target = HubName.parse(name, "name")
    if target.revision is not None:
        raise ConfigurationError(f"name={name!r} has a revision; a push makes a commit of main: leave @... out")
    if card is not None and (license is not None or data is not None):
        raise ConfigurationError(f"license= and data= go into a card that is made; write them into card={str(card)!r}")
    if card is None and license is None:
        raise ConfigurationError(
            "license= is missing, and nobody may use a model without a licence; give one as hubs name it, such as "
            "license='cc-by-4.0', that the terms of the cells allow"
        )
    text = "" if card is None else _read_card(card)
    opened = open_repository(folder)
    if license is not None:
        text = model_card(opened.manifest, target, license, data)
    return Package(opened.path, target, opened.manifest, text)


def push(
    folder: str | os.PathLike[str],
    name: str,
    *,
    license: str | None = None,
    data: str | None = None,
    card: str | os.PathLike[str] | None = None,
    private: bool = False,
) -> Pushed:
    """Share a model repository on a Hugging Face hub, in one commit; the repository there is made where it is not.

    Endpoint and token are huggingface_hub's own: ``HF_ENDPOINT``, and ``HF_TOKEN`` or ``hf auth login``.

    Parameters
    ----------
    folder
        Folder of the repository, as ``causcell export`` writes it. Its digests are checked first.
    name
        ``hf://OWNER/NAME``.
    license
        The licence's name on hubs, such as ``cc-by-4.0``. It is never guessed, and needed but for a card of your own.
    data
        What the model was trained on, for the card.
    card
        File of a model card of your own, in place of the one that is made of the manifest. Its front matter names the
        licence.
    private
        Make the hub's repository open to its owner alone.

    Raises
    ------
    ConfigurationError
        The name is not of this form; there is no licence, or its name has another form; ``license`` or ``data`` beside
        ``card``.
    ModelRepositoryError
        The folder is no repository, or not what was exported.
    RuntimeUnavailableError
        huggingface_hub is not installed.
    HubError
        The hub refuses it, can't be reached, or has a public repository where a private one was asked for.

    Examples
    --------
    >>> push("model_repository", "hf://lab")
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: name='hf://lab' names no model on a hub; give hf://OWNER/NAME, with @REVISION \
behind it for a branch, tag or commit, such as hf://lab/kang@v1
    """
    return send(prepare_push(folder, name, license=license, data=data, card=card), private=private)


def _read_card(path: str | os.PathLike[str]) -> str:
    text = read_bounded(local_path(path, "card"), _LARGEST_CARD, ConfigurationError).decode(errors="replace")
    if card_license(text) is None:
        raise ConfigurationError(
            f"card={os.fspath(path)!r} names no licence; begin it with the lines ---, license: cc-by-4.0 (or another), "
            "---, as a card that push makes does"
        )
    return text


def send(package: Package, *, private: bool = False) -> Pushed:
    """Send what `prepare_push` made; see `push`."""
    name = package.name
    with telling(name) as hub:
        api = hub.HfApi(**caller())
        api.create_repo(name.repository, private=private or None, exist_ok=True)
        there = api.model_info(name.repository)
        if private and not there.private:
            raise HubError(
                f"{name} is public on {api.endpoint}, and private=True was asked for; make it private there first, or "
                "leave private out"
            )
        commit = api.create_commit(
            name.repository,
            _operations(hub, package, [each.rfilename for each in there.siblings or []]),
            commit_message=f"Model {package.manifest.digest[:12]}",
        )
    return Pushed(f"{name}@{commit.oid}", str(commit.commit_url), len(package.files) + 1, package.size)


def _operations(hub: Any, package: Package, there: list[str]) -> list[Any]:
    """Return additions of every file and the card, and deletions of what an earlier model had and this one has not."""
    added = [hub.CommitOperationAdd(name, package.folder / name) for name in package.files]
    old = [
        each
        for each in there
        if each not in package.files and any(fnmatchcase(each, pattern) for pattern in _OF_MODELS)
    ]
    card = hub.CommitOperationAdd(CARD_FILE, package.card.encode())
    return [*added, card, *(hub.CommitOperationDelete(each) for each in old)]
