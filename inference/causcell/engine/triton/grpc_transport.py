"""Triton's gRPC protocol, by tritonclient."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.failures import (
    make_strange_answer_error,
    make_untrusted_error,
    translate_failure,
)
from causcell.engine.triton.messages import Shape
from causcell.engine.triton.tensors import (
    LARGEST_HEADER,
    TRITON_TYPES,
    ArraySpecs,
    Place,
    StrangeAnswerError,
    array_of,
    check_outputs,
    count_bytes,
)
from causcell.errors import EngineError, RuntimeUnavailableError, ServerUnavailableError

T = TypeVar("T")

LARGEST_MESSAGE = 16 << 20
"""Bytes of an answer to start with; channels for larger arrays are opened when they are asked for."""

_log = logging.getLogger(__name__)


class GrpcTransport:
    """Send requests over gRPC; see `causcell.engine.triton.transport.Transport`.

    gRPC bounds the size of answers by channel: there is one for each power of two that answers needed so far.

    Parameters
    ----------
    address
        Address of the server.
    connection
        Deadline, headers and certificates.

    Raises
    ------
    RuntimeUnavailableError
        tritonclient is not installed.
    """

    def __init__(self, address: Address, connection: Connection) -> None:
        self.address = address
        self._module = _load_client(address)
        self._connection = connection
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._client(LARGEST_MESSAGE)

    def is_ready(self) -> bool:
        """Tell if the server says that it and all its models are ready."""
        return bool(self._call("is_server_ready"))

    def metadata(self, shape: Shape[T]) -> T:
        """Ask what the server is."""
        return self._read(shape, "get_server_metadata")

    def index(self, shape: Shape[T]) -> T:
        """Ask for all models and their states."""
        return self._read(shape, "get_model_repository_index")

    def config(self, shape: Shape[T], model: str) -> T:
        """Ask for the configuration of a model."""
        return self._read(shape, "get_model_config", model)

    def statistics(self, shape: Shape[T]) -> T:
        """Ask what all models did."""
        return self._read(shape, "get_inference_statistics")

    def regions(self, shape: Shape[T]) -> T:
        """Ask which regions of system shared memory the server maps."""
        return self._read(shape, "get_system_shared_memory_status")

    def register_region(self, name: str, key: str, size: int) -> None:
        """Ask the server to map ``size`` bytes of the file ``key`` as a region."""
        self._call("register_system_shared_memory", name, key, size)

    def unregister_region(self, name: str, deadline: float | None = None) -> None:
        """Ask the server to forget a region, within ``deadline`` seconds if that is less than the connection's."""
        self._call("unregister_system_shared_memory", name, deadline=deadline)

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: ArraySpecs, places: Mapping[str, Place]
    ) -> dict[str, np.ndarray]:
        """Evaluate a model; arrays with a place are not sent, and outputs with a place are not returned."""
        tensors, wanted = [], []
        for name, array in inputs.items():
            tensor = self._module.InferInput(name, list(array.shape), TRITON_TYPES[array.dtype.name])
            if (place := places.get(name)) is None:
                tensor.set_data_from_numpy(np.ascontiguousarray(array))
            else:
                tensor.set_shared_memory(place.region, place.size, place.offset)
            tensors.append(tensor)
        for name in outputs:
            wanted.append(self._module.InferRequestedOutput(name))
            if (place := places.get(name)) is not None:
                wanted[-1].set_shared_memory(place.region, place.size, place.offset)
        expected = sum(count_bytes(spec) for name, spec in outputs.items() if name not in places)
        result = self._call("infer", model, tensors, outputs=wanted, expected=expected)
        try:
            return read_inference(result.get_response(), outputs, places)
        except StrangeAnswerError as error:
            raise make_strange_answer_error(self.address, str(error)) from error

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.close()

    def _read(self, shape: Shape[T], method: str, *arguments: str) -> T:
        try:
            return shape.read_message(self._call(method, *arguments, as_json=True))
        except StrangeAnswerError as error:
            raise make_strange_answer_error(self.address, str(error)) from error

    def _call(
        self, method: str, *arguments: Any, deadline: float | None = None, expected: int = 0, **options: Any
    ) -> Any:
        """Call a method of tritonclient's ``InferenceServerClient``, whose answer has ``expected`` bytes of arrays."""
        from google.protobuf.message import DecodeError
        from tritonclient.utils import InferenceServerException

        options["client_timeout"] = min(deadline or self._connection.deadline, self._connection.deadline)
        options["headers"] = dict(self._connection.headers)
        client = self._client(expected + LARGEST_HEADER)
        try:
            return getattr(client, method)(*arguments, **options)
        except InferenceServerException as error:
            failure = translate_failure(self.address, str(error.status()), error.message() or repr(error))
            if self.address.scheme == "grpcs" and isinstance(failure, ServerUnavailableError):
                self._check_certificate()
            raise failure from error
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise make_strange_answer_error(self.address, f"{type(error).__name__}: {error}"[:200]) from error
        except ValueError as error:  # what gRPC raises on a channel that was closed
            raise EngineError(f"the connection to {self.address} is closed ({error}); open the model again") from error

    def _client(self, largest: int) -> Any:
        """Return a client that takes answers of ``largest`` bytes, and of less than twice as many at most."""
        limit = max(LARGEST_MESSAGE, 1 << (largest - 1).bit_length())
        with self._lock:
            if limit not in self._clients:
                self._clients[limit] = self._new_client(min(limit, 2**31 - 1))
            return self._clients[limit]

    def _new_client(self, limit: int) -> Any:
        certificates = self._connection.certificates or ssl.get_default_verify_paths().cafile
        trusted = os.fspath(certificates) if self.address.is_secure and certificates else None
        return self._module.InferenceServerClient(
            self.address.netloc,
            ssl=self.address.is_secure,
            root_certificates=trusted,
            channel_args=[
                ("grpc.max_reconnect_backoff_ms", 1000),  # a server that comes back is found within a second
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small answer stays small
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def _check_certificate(self) -> None:
        """Raise `EngineError` if the certificate is not trusted, which gRPC reports like a server that is away."""
        context = ssl.create_default_context(cafile=self._connection.certificates)
        place = (self.address.host, self.address.port)
        try:
            with socket.create_connection(place, min(5.0, self._connection.deadline)) as plain:
                context.wrap_socket(plain, server_hostname=self.address.host).close()
        except ssl.SSLCertVerificationError as error:
            raise make_untrusted_error(self.address, error.verify_message) from error
        except OSError as error:
            _log.debug("%s: %s", self.address, error)


def read_inference(response: Any, outputs: ArraySpecs, places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Read the arrays in a ``ModelInferResponse``; raise `StrangeAnswerError` if they are not what was asked for."""
    described = [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in response.outputs]
    check_outputs(described, outputs)  # type: ignore[arg-type]
    following = [each.name for each in response.outputs if each.name not in places]
    contents = response.raw_output_contents
    # Triton has an entry for each output, empty for those in shared memory
    if len(contents) == len(described):
        by_name = dict(zip((each.name for each in response.outputs), contents, strict=True))
    elif len(contents) == len(following):
        by_name = dict(zip(following, contents, strict=True))
    else:
        raise StrangeAnswerError(f"it describes {len(described)} outputs, and holds the bytes of {len(contents)}")
    return {name: array_of(by_name[name], outputs[name], name) for name in following}


def _load_client(address: Address) -> ModuleType:
    try:
        return importlib.import_module("tritonclient.grpc")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"tritonclient can't be imported ({error}); install causcell[triton] for {address}"
        ) from error
