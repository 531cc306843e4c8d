"""Files of a model repository: all that the manifest lists, and in the folders that a server reads nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from causcell.errors import CorruptFileError, format_list
from causcell.repository.manifest import MANIFEST_FILE
from causcell.repository.served import CARRIER_CONFIG

_LEFT_BY_SYSTEMS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Names of files that operating systems leave in any folder."""

_LEFT_BY_TOOLS = (".git", ".cache")
"""Folders beside the models that a download leaves: of git, and of the Hugging Face hub."""

_LOADED = re.compile(
    r".*\.(onnx|ort|pb|pbtxt|pt|pth|ckpt|safetensors|pkl|pickle|joblib|npz|npy|bin|data|plan|engine|py|pyc|so|dll|dylib)"
    r"(\.\d+)*",
    re.IGNORECASE,
)
"""Names of files that a runtime, a server or Python loads."""


def check_listing(root: Path, files: Collection[str]) -> None:
    """Refuse a repository that holds files which its manifest does not list, or links that leave it.

    Beside the models' folders documents may lie, such as ``README.md``: no runtime and no server reads them. In the
    cache of huggingface_hub every file of a download is a link to the cache's own copy, and such links may be.

    Parameters
    ----------
    root
        Folder of the repository.
    files
        Paths that the manifest lists.

    Raises
    ------
    CorruptFileError
        A listed file is missing; a file in a model's folder, or one beside them that a runtime could load, is not
        listed; or a listed file is a link to a place outside.
    """
    missing = [name for name in files if not (root / name).is_file()]
    if missing:
        raise CorruptFileError(f"{root / missing[0]} is missing; restore it, or export again")
    known = {*files, MANIFEST_FILE, CARRIER_CONFIG}
    place, copies = root.resolve(), _cached_copies(root)
    strange = []
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        cached = copies is not None and _is_cached(path, copies)
        if name in known:
            if not cached and not path.resolve().is_relative_to(place):
                raise CorruptFileError(
                    f"{path} is a link to {os.fspath(path.resolve())!r}, outside the repository; put the file itself "
                    "there (cp -rL copies links as files)"
                )
        elif "/" in name or (path.is_symlink() and not cached) or _LOADED.fullmatch(name):
            strange.append(name)
    if strange:
        raise CorruptFileError(
            f"{str(root)!r} holds {format_list(sorted(strange))}, which {MANIFEST_FILE} does not list: export did not "
            "write it, and a server may load it; move it elsewhere, or export again"
        )


def _cached_copies(root: Path) -> Path | None:
    """Return where huggingface_hub keeps the files of a download, ``blobs``; `None` for any other folder.

    Its downloads are ``models--OWNER--NAME/snapshots/COMMIT``.
    """
    place = root.resolve()
    download = place.parent.parent
    known = place.parent.name == "snapshots" and download.name.startswith("models--")
    return download / "blobs" if known else None


def _is_cached(path: Path, copies: Path) -> bool:
    """Tell if a path is a link to a copy; which may be one itself, into a store in the cache that downloads share."""
    if not path.is_symlink() or not path.is_file():
        return False
    named = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    return named.parent == copies and path.resolve().is_relative_to(copies.parent.parent)


def _walk(root: Path) -> Iterator[Path]:
    """Yield all files and links, without those that systems and tools leave."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = [name for name in folders if name not in _LEFT_BY_TOOLS]
        yield from (here / name for name in names if not _LEFT_BY_SYSTEMS.fullmatch(name))
        yield from (here / name for name in folders if (here / name).is_symlink())
