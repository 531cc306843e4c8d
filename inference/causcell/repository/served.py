"""The parts of a served repository for a client that has nothing but its address.

A parameter of each model's configuration says which ONNX file it was written for. Beside the graphs stands one Triton
model more, the carrier, named ``reference``: its configuration carries the manifest, and its ONNX graph gives the bytes
of ``reference.npz``, by chunks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from causcell.repository.manifest import GraphInfo, TensorInfo

CARRIER_MODEL = "reference"
"""Name of the Triton model that carries the manifest and the reference cells."""

CARRIER_CONFIG = f"{CARRIER_MODEL}/config.pbtxt"
"""Path of the carrier's configuration in a repository."""

CHUNK = 65536
"""Bytes of the reference cells' file that one row of the carrier's graph gives; the last chunk is filled with zeros."""

CARRIER_GRAPH = GraphInfo(
    inputs={"chunk": TensorInfo(dtype="int64", shape=(1,))},
    outputs={"bytes": TensorInfo(dtype="uint8", shape=(1, CHUNK))},
)
"""Inputs and outputs of the carrier's graph: a chunk's number, int64 [B x 1]; its bytes, uint8 [B x 1 x `CHUNK`]."""

MANIFEST_PARAMETER = "causcell.manifest"
"""Parameter of the carrier's configuration that holds the manifest."""

REFERENCE_BYTES_PARAMETER = "causcell.reference_bytes"
"""Parameter of the carrier's configuration that holds the size of the reference cells' file in bytes."""

DIGEST_PARAMETER = "causcell.sha256"
"""Parameter of each graph's configuration that holds the SHA-256 of its ONNX file."""


def manifest_parameter(fields: Mapping[str, Any]) -> str:
    """Return the text of `MANIFEST_PARAMETER` for a manifest's fields as ``manifest.json`` holds them."""
    return json.dumps(fields, separators=(",", ":"))
