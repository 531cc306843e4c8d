"""A model repository on disk: a manifest, reference cells, and one folder a graph. Checked when it is opened."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.digests import file_digest
from causcell.errors import CorruptFileError, DigestError, format_list
from causcell.repository.manifest import MANIFEST_FILE, REFERENCE_FILE, Manifest
from causcell.repository.reference_cells import ReferenceCells
from causcell.repository.served import REFERENCE_CONFIG, manifest_parameter


@dataclass(frozen=True)
class Repository:
    """An opened repository whose digests hold."""

    path: Path
    manifest: Manifest
    reference: ReferenceCells

    def graph_path(self, graph: str) -> Path:
        """File of a graph."""
        return self.path / graph / "1" / "model.onnx"


def open_repository(path: str | os.PathLike[str]) -> Repository:
    """Open a repository and verify every file against its digest.

    Raises
    ------
    CorruptFileError
        No repository there, or a file is missing or unreadable.
    DigestError
        A file is not the one that was exported.
    SchemaVersionError
        Written by a newer CausCell.
    """
    root = Path(path)
    manifest_file = root / MANIFEST_FILE
    if not manifest_file.is_file():
        raise CorruptFileError(
            f"{str(path)!r} is no model repository: it has no {MANIFEST_FILE}; make one with causcell export"
        )
    manifest = Manifest.from_json(manifest_file.read_bytes(), str(manifest_file))
    for name, digest in manifest.files.items():
        file = root / name
        if not file.is_file():
            raise CorruptFileError(f"{file} is missing; restore it, or export again")
        if file_digest(file) != digest:
            raise DigestError(
                f"{file} is not the file that was exported ({file.stat().st_size} bytes, another SHA-256 than the "
                "manifest's): it was truncated or changed; restore it, or export again"
            )
    absent = [
        name for name in (REFERENCE_FILE, *(f"{g}/1/model.onnx" for g in manifest.graphs)) if name not in manifest.files
    ]
    if absent:
        raise CorruptFileError(f"{manifest_file} lists no digest of {format_list(absent)}; export again")
    _check_carried(manifest_file)
    return Repository(root, manifest, ReferenceCells.load(root / REFERENCE_FILE))


def _check_carried(manifest_file: Path) -> None:
    """The one file without a digest: it holds the manifest, and the manifest can't hold its digest."""
    config = manifest_file.parent / REFERENCE_CONFIG
    carried = manifest_parameter(json.loads(manifest_file.read_bytes()))
    escaped = carried.translate({ord(each): f"\\{each}" for each in "\\\"'"})
    if config.is_file() and f'"{escaped}"' not in config.read_text():
        raise DigestError(
            f"{config}, which tells clients of a server the manifest, holds another than {MANIFEST_FILE}; export again"
        )
