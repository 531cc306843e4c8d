"""A model repository on disk: a manifest, reference cells, and one folder a graph. Checked when it is opened."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.reading import read_bounded
from causcell.errors import CorruptFileError, DigestError, format_list
from causcell.repository.hub import HubName, is_hub_name, repository_folder
from causcell.repository.listing import check_listing
from causcell.repository.manifest import LARGEST_MANIFEST, MANIFEST_FILE, REFERENCE_FILE, Manifest, graph_file
from causcell.repository.onnx_scan import check_onnx
from causcell.repository.reference_cells import ReferenceCells
from causcell.repository.served import CARRIER_CONFIG, CARRIER_MODEL, manifest_parameter
from causcell.repository.triton_config import check_config

_LARGEST_FILE = 2**31
"""Bytes of a file that are read at most: those that a protocol buffer, which an ONNX file is, may have."""


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

    def read_graph(self, graph: str) -> bytes:
        """Read a graph's ONNX file; raises `DigestError` if it is not what it was when the repository was opened."""
        return _read_verified(self.path, graph_file(graph), self.manifest.files[graph_file(graph)])


def open_repository(path: str | os.PathLike[str]) -> Repository:
    """Open a model repository and verify every file against its digest.

    Parameters
    ----------
    path
        Its folder; or its name on a hub, ``hf://OWNER/NAME[@REVISION]``, see
        `causcell.repository.hub.repository_folder`.

    Raises
    ------
    HubError
        A hub does not have it, does not give it, or can't be reached.
    CorruptFileError
        No repository there; a file is missing, unreadable or not listed by the manifest; the manifest's parts
        contradict each other; or a graph needs other files or operators than ONNX's.
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
    root = repository_folder(path)
    if not is_hub_name(path):
        return _open_folder(root, str(path))
    try:
        return _open_folder(root, str(path))
    except (CorruptFileError, DigestError) as error:
        raise type(error)(
            f"{HubName.parse(path)}, as it was downloaded: {error}; or remove {root.parents[1]} to have it downloaded "
            "again, and have it pushed again if that says the same"
        ) from error


def _open_folder(root: Path, path: str) -> Repository:
    manifest_file = root / MANIFEST_FILE
    if not manifest_file.is_file():
        raise CorruptFileError(
            f"{path!r} is no model repository: it has no {MANIFEST_FILE}; make one with causcell export"
        )
    content = read_bounded(manifest_file, LARGEST_MANIFEST)
    manifest = Manifest.from_json(content, str(manifest_file))
    needed = [REFERENCE_FILE, *map(graph_file, manifest.graphs)]
    absent = [name for name in needed if name not in manifest.files]
    if absent:
        raise CorruptFileError(f"{manifest_file} lists no digest of {format_list(absent)}; export again")
    check_listing(root, manifest.files)
    reference = b""
    for name, digest in manifest.files.items():
        verified = _read_verified(root, name, digest)
        if name == REFERENCE_FILE:
            reference = verified
        elif name.endswith(".onnx"):
            check_onnx(verified, str(root / name))
        elif name.endswith(".pbtxt"):
            check_config(verified, str(root / name))
    _check_carrier(root, manifest, content)
    return Repository(root, manifest, ReferenceCells.load(reference, manifest, str(root / REFERENCE_FILE)))


def _read_verified(root: Path, name: str, digest: str) -> bytes:
    """Read a file of the manifest: the bytes that were verified are the bytes that are used."""
    file = root / name
    content = read_bounded(file, _LARGEST_FILE)
    if hashlib.sha256(content).hexdigest() != digest:
        raise DigestError(
            f"{file} is not the file that was exported ({len(content)} bytes, another SHA-256 than the "
            "manifest's): it was truncated or changed; restore it, or export again"
        )
    return content


def _check_carrier(root: Path, manifest: Manifest, content: bytes) -> None:
    """Check that the carrier's configuration holds this manifest.

    It is the one file without a digest: it holds the manifest, which can't hold the digest of a file that holds it.
    """
    config = root / CARRIER_CONFIG
    if not config.is_file():
        if graph_file(CARRIER_MODEL) in manifest.files:
            raise CorruptFileError(f"{config} is missing; restore it, or export again")
        return  # an older export, which can't be served by its address alone
    carried = manifest_parameter(json.loads(content))
    escaped = carried.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")  # as protobuf's text format does
    text = read_bounded(config, 4 * LARGEST_MANIFEST)
    check_config(text, str(config))
    if f'"{escaped}"' not in text.decode(errors="replace"):
        raise DigestError(
            f"{config}, which tells clients of a server the manifest, holds another than {MANIFEST_FILE}; export again"
        )
