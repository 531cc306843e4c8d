"""Places to write to: taken ones are refused, new ones appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from causcell.errors import OutputExistsError


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder beside ``path``; it is renamed to ``path`` when the block ends well, removed when it does not.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` already, and would be overwritten.
    """
    target = Path(path).absolute()
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    staging.chmod(0o755)
    try:
        yield staging
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Write a file beside ``path``; it is renamed to ``path`` when the block ends well, removed when it does not.

    A kill at any moment leaves the file that was there before, or none; never a part of one.

    Parameters
    ----------
    path
        The file.
    overwrite
        Replace a file that is there.

    Yields
    ------
    Path to write to, with the suffix of ``path``.

    Raises
    ------
    OutputExistsError
        Something is at ``path`` already, and ``overwrite`` is not set.
    """
    target = Path(path).absolute()
    if not overwrite:
        refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(target)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Raise `OutputExistsError` if something is at ``path``; an empty folder is nothing."""
    target = Path(path)
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise OutputExistsError(
            f"{str(path)!r} exists already and is not overwritten; remove it, or name another place"
        )
