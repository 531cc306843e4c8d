"""Model repositories on a Hugging Face hub: names such as ``hf://OWNER/NAME``, and what they are downloaded to.

Which hub, who asks and where downloads are kept is told by huggingface_hub's own environment alone: ``HF_ENDPOINT``,
``HF_TOKEN`` (or ``hf auth login``), ``HF_HOME``, ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from causcell._internal.files import local_path
from causcell._internal.reading import read_bounded
from causcell._internal.versions import installed_versions
from causcell.errors import CausCellError, ConfigurationError, CorruptFileError, HubError, RuntimeUnavailableError
from causcell.repository.manifest import LARGEST_MANIFEST, MANIFEST_FILE, Manifest
from causcell.repository.served import CARRIER_CONFIG

_SCHEME = re.compile(r"hf:/+", re.IGNORECASE)
"""A path that was such a name has one slash: ``Path("hf://lab/kang")`` is ``hf:/lab/kang``."""

_NAME = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]{0,95})/(?P<name>[A-Za-z0-9_][\w.-]{0,95})(@(?P<revision>[\w][\w./-]{0,199}))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_LONGEST_REASON = 300


@dataclass(frozen=True)
class HubName:
    """The name of a model repository on a hub.

    Attributes
    ----------
    owner, name
        User or organisation, and its repository.
    revision
        Branch, tag or commit; the hub's ``main`` branch where it is `None`.

    Examples
    --------
    >>> HubName.parse("hf://lab/kang@v1")
    HubName(owner='lab', name='kang', revision='v1')
    >>> str(HubName("lab", "kang"))
    'hf://lab/kang'
    """

    owner: str
    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, location: str | os.PathLike[str], what: str = "models") -> HubName:
        """Read a name; raises `ConfigurationError`, which calls the argument ``what``, for one of another form."""
        text = os.fspath(location)
        found = _NAME.fullmatch(_SCHEME.sub("", text, count=1)) if _SCHEME.match(text) else None
        if found is None or not _may_be(found["owner"]) or not _may_be(found["name"]) or ".." in text:
            raise ConfigurationError(
                f"{what}={_SCHEME.sub('hf://', text, count=1)!r} names no model on a hub; give hf://OWNER/NAME, with "
                "@REVISION behind it for a branch, tag or commit, such as hf://lab/kang@v1"
            )
        return cls(**found.groupdict())

    @property
    def repository(self) -> str:
        """Owner and name, as the hub calls a repository."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def _may_be(part: str) -> bool:
    """Tell if a hub takes a word for an owner or a name: huggingface_hub's own rules."""
    return "--" not in part and not part.endswith((".", "-", ".git"))


def is_hub_name(location: str | os.PathLike[str]) -> bool:
    """Tell the name of a model on a hub from a path or the address of a server.

    Examples
    --------
    >>> is_hub_name("hf://lab/kang"), is_hub_name("grpc://localhost:8001"), is_hub_name("models")
    (True, False, False)
    """
    return _SCHEME.match(os.fspath(location)) is not None


def repository_folder(location: str | os.PathLike[str]) -> Path:
    """Return the folder of a model repository: the path itself, or the download of a name on a hub.

    Parameters
    ----------
    location
        Path of a folder; or ``hf://OWNER/NAME[@REVISION]``. Of the latter every file that the manifest lists is
        downloaded into huggingface_hub's cache, or found there: a commit that is there whole asks no hub, and another
        revision is taken as the cache has it where no hub can be reached.

    Raises
    ------
    ConfigurationError
        A URL, or a name of another form.
    RuntimeUnavailableError
        huggingface_hub is not installed.
    HubError
        The hub has no such model or revision, does not give it to this user, or can't be reached.
    CorruptFileError
        What is there is no model repository, or lacks a file.
    """
    if not is_hub_name(location):
        return local_path(location, "models")
    name = HubName.parse(location)
    manifest = _fetch_manifest(name)
    root = manifest.parent
    listed = Manifest.from_json(read_bounded(manifest, LARGEST_MANIFEST), f"{MANIFEST_FILE} of {name}").files
    files = [*listed, CARRIER_CONFIG]
    if not _lacking(root, files):
        return root
    with telling(name) as hub:
        hub.snapshot_download(name.repository, revision=root.name, allow_patterns=files, **caller())
        absent = _lacking(root, listed)
        if absent and hub.constants.HF_HUB_OFFLINE:  # of which its earlier versions say nothing
            raise hub.errors.LocalEntryNotFoundError(absent[0])
    if absent:
        raise CorruptFileError(
            f"{name} has no {absent[0]}, which its {MANIFEST_FILE} lists; whoever shares it has to push it again"
        )
    return root


def pin_revision(location: str | os.PathLike[str]) -> str:
    """Return the name with the commit that it stands for now, so that every process opens the same files.

    Raises
    ------
    ConfigurationError, RuntimeUnavailableError, HubError, CorruptFileError
        See `repository_folder`.
    """
    name = HubName.parse(location)
    if name.revision is not None and _COMMIT.fullmatch(name.revision):
        return str(name)
    return str(HubName(name.owner, name.name, _fetch_manifest(name).parent.name))


def _fetch_manifest(name: HubName) -> Path:
    """Download the manifest alone: what has none is no model, whatever else it holds; its folder is the commit's."""
    with telling(name) as hub:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hub.hf_hub_download(name.repository, MANIFEST_FILE, revision=name.revision, **caller()))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise CorruptFileError(
                f"{name} is no model repository: it has no {MANIFEST_FILE}; share one with causcell push"
            ) from error


def _lacking(root: Path, files: list[str] | dict[str, str]) -> list[str]:
    return [each for each in files if not (root / each).is_file()]


def caller() -> dict[str, str]:
    """Return by what name a hub knows this client."""
    return {"library_name": "causcell", "library_version": installed_versions("causcell").get("causcell", "0")}


@contextlib.contextmanager
def telling(name: HubName) -> Iterator[Any]:
    """Give huggingface_hub, and turn what it raises into a `HubError` that names the model, the reason and the remedy.

    Raises
    ------
    RuntimeUnavailableError
        huggingface_hub is not installed.
    """
    try:
        hub = import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"{name} needs the package huggingface_hub; install causcell[hub]") from error
    try:
        yield hub
    except CausCellError:
        raise
    except Exception as error:  # its own, the disk's, and those of the HTTP library below, which its versions change
        raise HubError(f"{name} {_explain(error, name)}") from error


def _explain(error: Exception, name: HubName) -> str:
    """Return what is wrong with a model of a hub, and what to do, in words that follow its name."""
    errors: Any = import_module("huggingface_hub.errors")
    constants: Any = import_module("huggingface_hub.constants")
    endpoint = constants.ENDPOINT
    token = "log in with `hf auth login`, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"is not there: {endpoint} has no branch, tag or commit {name.revision!r} of it; leave it out for main"
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # what the hub says of the card
        return f"is not taken by {endpoint}: {' '.join(str(error).split())}"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"is not there, or not open to this user, at {endpoint} ({_reason(error)}); check owner and name; where "
            f"the model is private or gated, or is to be pushed, {token}"
        )
    if constants.HF_HUB_OFFLINE and isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return f"is not whole in the cache of huggingface_hub, and HF_HUB_OFFLINE is set; unset it to ask {endpoint}"
    if status is None and isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return f"is not in the cache of huggingface_hub, and {endpoint} can't be reached ({_reason(error)}); try again"
    return f"can't be used: {endpoint} and huggingface_hub say: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """Return what a hub says, or what is the matter on the way to it, in one line."""
    while error.__cause__ is not None and not getattr(error, "server_message", None):
        error = error.__cause__
    text = " ".join(str(getattr(error, "server_message", None) or error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
