"""What a served repository tells a client that has nothing but its address.

A parameter of each model's configuration says which ONNX file it was written for. Beside the graphs stands one model
more, ``reference``: its configuration carries the manifest, and its graph the bytes of ``reference.npz``, by chunks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from causcell.repository.manifest import GraphInfo, TensorInfo

REFERENCE_MODEL = "reference"


REFERENCE_CONFIG = f"{REFERENCE_MODEL}/config.pbtxt"


CHUNK = 65536
"""Bytes of the reference cells' file that one row of the ``reference`` graph gives; the last is filled with zeros."""


REFERENCE_GRAPH = GraphInfo(
    inputs={"chunk": TensorInfo(dtype="int64", shape=(1,))},
    outputs={"bytes": TensorInfo(dtype="uint8", shape=(1, CHUNK))},
)


MANIFEST_PARAMETER = "causcell.manifest"


REFERENCE_BYTES_PARAMETER = "causcell.reference_bytes"


DIGEST_PARAMETER = "causcell.sha256"


def manifest_parameter(fields: Mapping[str, Any]) -> str:
    """Text of the manifest as the configuration carries it."""
    return json.dumps(fields, separators=(",", ":"))
