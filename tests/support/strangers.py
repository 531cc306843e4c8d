"""Model repositories as a stranger would hand them over: changed, and sealed again so that every digest holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paths import ROOT

from causcell.repository.served import CARRIER_CONFIG, MANIFEST_PARAMETER, manifest_parameter

ARCHIVED = ROOT / "tests" / "archive" / "0.1.0" / "models"
"""A small repository of an earlier version: 40 genes, five graphs."""


def seal(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest's fields with the digest of the others, as an export writes it."""
    identity = {name: value for name, value in fields.items() if name not in ("digest", "speed")}
    return fields | {"digest": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()}


def stranger(
    folder: Path,
    files: dict[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], object] = lambda fields: None,
) -> Path:
    """Make a repository at ``folder`` whose digests hold, with some files and some of its manifest changed."""
    shutil.copytree(ARCHIVED, folder)
    before = json.loads((folder / "manifest.json").read_bytes())
    fields = json.loads((folder / "manifest.json").read_bytes())
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        if name in fields["files"]:
            fields["files"][name] = hashlib.sha256(content).hexdigest()
    change(fields)
    fields = seal(fields)
    (folder / "manifest.json").write_text(json.dumps(fields))
    config = folder / CARRIER_CONFIG
    assert MANIFEST_PARAMETER in config.read_text()
    config.write_text(config.read_text().replace(_escaped(before), _escaped(fields)))
    return folder


def _escaped(fields: dict[str, Any]) -> str:
    text = manifest_parameter(fields)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
