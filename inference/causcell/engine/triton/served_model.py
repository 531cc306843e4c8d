"""Read from servers the model that they serve: its manifest, its reference cells and its largest batches."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from causcell.engine.outputs import check_answer
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Address
from causcell.engine.triton.messages import ModelConfig
from causcell.engine.triton.retries import TRANSIENT, retry_transient
from causcell.errors import CorruptFileError, DigestError, format_list
from causcell.repository.manifest import REFERENCE_FILE, Manifest, graph_file
from causcell.repository.reference_cells import ReferenceCells
from causcell.repository.served import (
    CARRIER_GRAPH,
    CARRIER_MODEL,
    DIGEST_PARAMETER,
    MANIFEST_PARAMETER,
    REFERENCE_BYTES_PARAMETER,
)

_LARGEST_REFERENCE = 1 << 30  # bytes
_LARGEST_CARRIER_BATCH = 128  # chunks of 64 KiB that one request asks for

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model as a server describes it.

    Attributes
    ----------
    manifest
        Manifest of the model, checked by its digest.
    largest_batch
        Rows that one request to each graph may have.
    """

    manifest: Manifest
    largest_batch: dict[str, int]


def read_served_model(servers: Sequence[TritonClient], patience: float) -> ServedModel:
    """Read the model that all servers that answer agree upon.

    Parameters
    ----------
    servers
        Clients of all servers of one location.
    patience
        Seconds to go on trying for with each server.

    Raises
    ------
    ServerUnavailableError, DeadlineExceededError
        No server answers.
    ModelRepositoryError
        A server serves no model of CausCell's, parts of different exports, a newer version's, or another model than the
        others.
    """
    found: dict[str, ServedModel] = {}
    unavailable: list[Exception] = []
    for server in servers:
        try:
            found[str(server.address)] = retry_transient(partial(_read_model, server), patience, longest_pause=1.0)
        except TRANSIENT as error:
            unavailable.append(error)
            _log.warning("%s", error)
    if not found:
        raise unavailable[0]
    first, model = next(iter(found.items()))
    for address, other in found.items():
        if other.manifest.digest != model.manifest.digest:
            raise DigestError(
                f"{first} serves model {model.manifest.digest[:12]}, {address} serves {other.manifest.digest[:12]}; "
                "servers of one location must serve the same model"
            )
    largest = {graph: min(each.largest_batch[graph] for each in found.values()) for graph in model.manifest.graphs}
    return ServedModel(model.manifest, largest)


def read_reference_bytes(server: TritonClient) -> bytes:
    """Read the bytes of ``reference.npz`` from the carrier, in as few requests as its largest batch allows."""
    config = server.config(CARRIER_MODEL)
    size = _read_size(config, server.address)
    tensor = CARRIER_GRAPH.outputs["bytes"]
    chunks = np.arange(-(-size // tensor.shape[1]))[:, None]
    rows = min(max(config.get("max_batch_size", 0), 1), _LARGEST_CARRIER_BATCH)
    parts = []
    for start in range(0, len(chunks), rows):
        asked = chunks[start : start + rows]
        wanted = {"bytes": (tensor.dtype, (len(asked), *tensor.shape))}
        answer = server.infer(CARRIER_MODEL, {"chunk": asked}, wanted)
        origin = str(server.address)
        parts.append(check_answer(CARRIER_MODEL, CARRIER_GRAPH, ["bytes"], len(asked), answer, origin=origin)["bytes"])
    return np.concatenate(parts).tobytes()[:size]


def load_reference_cells(content: bytes, manifest: Manifest, location: str) -> ReferenceCells:
    """Load the reference cells that a server sent; raises `DigestError` if they are not those of the manifest."""
    if hashlib.sha256(content).hexdigest() != manifest.files[REFERENCE_FILE]:
        raise DigestError(
            f"the reference cells that {location} serves are not those of its manifest; serve one export's "
            "repository, whole"
        )
    return ReferenceCells.load(content, manifest, f"{REFERENCE_FILE} of {location}")


def _read_model(server: TritonClient) -> ServedModel:
    """Read the manifest of a server, and check that every graph is of the file that the manifest names."""
    served = set(server.model_names())
    carrier = _read_config(server, CARRIER_MODEL, served)
    manifest = Manifest.from_json(_read_parameter(carrier, MANIFEST_PARAMETER), str(server.address))
    largest = {}
    for graph in manifest.graphs:
        config = _read_config(server, graph, served)
        if _read_parameter(config, DIGEST_PARAMETER) != manifest.files[graph_file(graph)]:
            raise DigestError(
                f"{server.address} serves {graph!r} of another export than its manifest's; serve one export's "
                "repository, whole"
            )
        largest[graph] = max(config.get("max_batch_size", 0), 1)
    return ServedModel(manifest, largest)


def _read_config(server: TritonClient, model: str, served: set[str]) -> ModelConfig:
    if model not in served:
        raise CorruptFileError(
            f"{server.address} serves no model {model!r}, but {format_list(sorted(served))}; serve the whole "
            "repository that causcell export wrote"
        )
    return server.config(model)


def _read_size(config: ModelConfig, address: Address) -> int:
    """Read how many bytes the reference cells have; a server that lies must not make the client ask for ever."""
    text = _read_parameter(config, REFERENCE_BYTES_PARAMETER)
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= _LARGEST_REFERENCE):
        raise CorruptFileError(
            f"{address} says that its reference cells have {text[:20]!r} bytes; up to {_LARGEST_REFERENCE:,} are read: "
            "serve the repository that causcell export wrote"
        )
    return int(text)


def _read_parameter(config: ModelConfig, name: str) -> str:
    try:
        return config["parameters"][name]["string_value"]
    except KeyError as error:
        raise CorruptFileError(
            f"model {config.get('name')!r} has no parameter {name!r} in its configuration; serve the repository that "
            "causcell export wrote, its config.pbtxt as written"
        ) from error
