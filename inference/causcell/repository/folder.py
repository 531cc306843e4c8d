"""A model repository on disk: a manifest, reference cells, and one folder a graph. Checked when it is opened."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.digests import file_digest
from causcell._internal.files import local_path
from causcell.errors import CorruptFileError, DigestError, format_list
from causcell.repository.manifest import MANIFEST_FILE, REFERENCE_FILE, Manifest, graph_file
from causcell.repository.reference_cells import ReferenceCells
from causcell.repository.served import CARRIER_CONFIG, manifest_parameter


@dataclass(frozen=True)
class Repository:
    """An opened model repository whose digests hold.

    Attributes
    ----------
    path
        Its folder.
    manifest
        What the model is.
    reference
        Reference cells that interventions draw from.
    """

    path: Path
    manifest: Manifest
    reference: ReferenceCells

    def graph_path(self, graph: str) -> Path:
        """Return the path of a graph's ONNX file."""
        return self.path / graph_file(graph)


def open_repository(path: str | os.PathLike[str]) -> Repository:
    """Open a model repository and verify every file against its digest.

    Parameters
    ----------
    path
        Its folder.

    Raises
    ------
    CorruptFileError
        No repository there, or a file is missing or unreadable.
    DigestError
        A file is not the one that was exported.
    SchemaVersionError
        Written by a newer CausCell.

    Examples
    --------
    >>> repository = open_repository("model_repository")
    >>> repository.manifest.concept_schema.names
    ('bulk_labels', 'phase')
    >>> repository.manifest.default_preset
    'draw'
    """
    root = local_path(path, "models")
    manifest_file = root / MANIFEST_FILE
    if not manifest_file.is_file():
        raise CorruptFileError(
            f"{str(path)!r} is no model repository: it has no {MANIFEST_FILE}; make one with causcell export"
        )
    manifest = Manifest.from_json(manifest_file.read_bytes(), str(manifest_file))
    _check_files(root, manifest)
    _check_carrier(root)
    return Repository(root, manifest, ReferenceCells.load(root / REFERENCE_FILE))


def _check_files(root: Path, manifest: Manifest) -> None:
    """Check that the manifest's files are there with its digests, and that it names all files that are needed."""
    for name, digest in manifest.files.items():
        file = root / name
        if not file.is_file():
            raise CorruptFileError(f"{file} is missing; restore it, or export again")
        if file_digest(file) != digest:
            raise DigestError(
                f"{file} is not the file that was exported ({file.stat().st_size} bytes, another SHA-256 than the "
                "manifest's): it was truncated or changed; restore it, or export again"
            )
    needed = [REFERENCE_FILE, *map(graph_file, manifest.graphs)]
    absent = [name for name in needed if name not in manifest.files]
    if absent:
        raise CorruptFileError(f"{root / MANIFEST_FILE} lists no digest of {format_list(absent)}; export again")


def _check_carrier(root: Path) -> None:
    """Check that the carrier's configuration holds this manifest.

    It is the one file without a digest: it holds the manifest, which can't hold the digest of a file that holds it.
    """
    config = root / CARRIER_CONFIG
    if not config.is_file():  # an older export, which can't be served by its address alone
        return
    carried = manifest_parameter(json.loads((root / MANIFEST_FILE).read_bytes()))
    escaped = carried.translate({ord(each): f"\\{each}" for each in "\\\"'"})  # as protobuf's text format does
    if f'"{escaped}"' not in config.read_text():
        raise DigestError(
            f"{config}, which tells clients of a server the manifest, holds another than {MANIFEST_FILE}; export again"
        )
