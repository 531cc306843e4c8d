"""Client of one server, over gRPC or HTTP."""

from __future__ import annotations

import logging
import os
import queue
import socket
import ssl
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from causcell.engine.triton.connection import Address, Connection
from causcell.engine.triton.failures import http_errors, timeout_error, translate_failure, untrusted_error
from causcell.engine.triton.shared_memory import Region, abandoned, offsets
from causcell.errors import (
    DeadlineExceededError,
    EngineError,
    RuntimeUnavailableError,
    ServerUnavailableError,
)

_log = logging.getLogger(__name__)


_TYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}


class TritonClient:
    """A client of one server. Safe to use from several threads."""

    def __init__(self, address: Address, connection: Connection) -> None:
        self.address = address
        self._connection = connection
        self._module = _client_module(address)
        self._clients = threading.local()
        self._opened: list[Any] = []
        self._shared_client = self._new_client() if self._is_grpc else None
        self._shares_memory: bool | None = None if connection.shared_memory else False
        self._negotiation = threading.Lock()
        self._regions: queue.LifoQueue[Region] = queue.LifoQueue()

    @property
    def _is_grpc(self) -> bool:
        return self.address.scheme in ("grpc", "grpcs")

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def version(self) -> str:
        """Of the server."""
        return str(self._ask("get_server_metadata")["version"])

    def is_ready(self) -> bool:
        """Whether the server answers, and all its models are ready."""
        try:
            return bool(self._ask("is_server_ready", as_json=False))
        except (ServerUnavailableError, DeadlineExceededError):
            return False

    def models(self) -> list[dict[str, str]]:
        """Name, version, state (and the reason of a failure) of each model."""
        index = self._ask("get_model_repository_index")
        return list(index.get("models", [])) if isinstance(index, dict) else list(index)

    def config(self, model: str) -> dict[str, Any]:
        """Configuration of a model, as Triton completed it."""
        config = self._ask("get_model_config", model)
        return dict(config.get("config", config))

    def statistics(self) -> dict[str, dict[str, float]]:
        """By model since the server started: requests, executions, rows, mean milliseconds in the queue and at work."""
        stats = self._ask("get_inference_statistics")["model_stats"]
        return {each["name"]: _statistics(each) for each in stats}

    def shared_regions(self) -> list[str]:
        """Names of the regions of system shared memory that it maps, of all clients."""
        status = self._ask("get_system_shared_memory_status")
        return list(status.get("regions", {})) if isinstance(status, dict) else [each["name"] for each in status]

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    ) -> dict[str, np.ndarray]:
        """Outputs of a model, by name.

        Parameters
        ----------
        outputs
            Type and shape (with the batch) of each wanted output.

        Raises
        ------
        ServerUnavailableError, DeadlineExceededError
            No answer; worth another try.
        EngineError
            The server refused the request, or failed at it.
        """
        if self._memory_is_shared():
            try:
                return self._infer_shared(model, inputs, outputs)
            except OSError as error:  # of a new region; what the server does is an `EngineError`
                self._shares_memory = False
                _log.warning(
                    "no more memory to share with %s (%s); arrays travel over the connection", self.address, error
                )
        tensors = [self._input(name, array) for name, array in inputs.items()]
        for tensor, array in zip(tensors, inputs.values(), strict=True):
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        wanted = [self._module.InferRequestedOutput(name) for name in outputs]
        result = self._call("infer", model, tensors, outputs=wanted)
        return {name: result.as_numpy(name) for name in outputs}

    def reset(self) -> None:
        """Forget the regions that the server knew: it may have restarted, or may still be writing to them."""
        while not self._regions.empty():
            self._drop(self._regions.get_nowait())

    def close(self) -> None:
        """Let go of regions and connections."""
        self.reset()
        for client in self._opened:
            client.close()
        self._opened.clear()

    # -- shared memory -----------------------------------------------------------------------------------------------

    def _memory_is_shared(self) -> bool:
        if self._shares_memory is None:
            with self._negotiation:
                if self._shares_memory is None:
                    self._shares_memory = self._negotiate()
        return self._shares_memory

    def _negotiate(self) -> bool:
        """Whether the server can map a region of this process: it can on one host, if it was started to."""
        try:
            region = self._new_region(1)
        except (EngineError, OSError) as reason:
            _log.info("no shared memory with %s (%s); arrays travel over the connection", self.address, reason)
            return False
        self._regions.put(region)
        for name in abandoned(self.shared_regions()):
            self._call("unregister_system_shared_memory", name)
        return True

    def _new_region(self, size: int) -> Region:
        region = Region(size)
        try:
            region.register(lambda *names: self._call("register_system_shared_memory", *names))
        except BaseException:
            region.close()
            raise
        return region

    def _drop(self, region: Region) -> None:
        region.close()
        try:
            self._call("unregister_system_shared_memory", region.name, deadline=min(1.0, self._connection.deadline))
        except EngineError as error:  # the server is gone, and its mapping with it
            _log.debug("%s did not unregister %s: %s", self.address, region.name, error)

    def _region_of(self, size: int) -> Region:
        try:
            region = self._regions.get_nowait()
        except queue.Empty:
            return self._new_region(size)
        if region.size >= size:
            return region
        self._drop(region)
        return self._new_region(size)

    def _infer_shared(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    ) -> dict[str, np.ndarray]:
        sizes = {name: array.nbytes for name, array in inputs.items()}
        sizes |= {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, (dtype, shape) in outputs.items()}
        places, size = offsets(sizes.values())
        place = dict(zip(sizes, places, strict=True))
        region = self._region_of(size)
        try:
            tensors = []
            for name, array in inputs.items():
                region.write(place[name], array)
                tensors.append(self._input(name, array))
                tensors[-1].set_shared_memory(region.name, sizes[name], place[name])
            wanted = []
            for name in outputs:
                wanted.append(self._module.InferRequestedOutput(name))
                wanted[-1].set_shared_memory(region.name, sizes[name], place[name])
            self._call("infer", model, tensors, outputs=wanted)
            result = {name: region.read(place[name], dtype, shape) for name, (dtype, shape) in outputs.items()}
        except BaseException:
            self._drop(region)  # a request that failed may still write to it
            raise
        self._regions.put(region)
        return result

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _input(self, name: str, array: np.ndarray) -> Any:
        return self._module.InferInput(name, list(array.shape), _TYPES[array.dtype.name])

    def _ask(self, method: str, *arguments: Any, as_json: bool = True) -> Any:
        options = {"as_json": True} if self._is_grpc and as_json else {}
        return self._call(method, *arguments, **options)

    def _call(self, method: str, *arguments: Any, deadline: float | None = None, **options: Any) -> Any:
        """A method of tritonclient's, its many ways to fail turned into CausCell's errors."""
        from tritonclient.utils import InferenceServerException

        if self._is_grpc:
            options["client_timeout"] = deadline or self._connection.deadline
        try:
            return getattr(self._client(), method)(*arguments, headers=dict(self._connection.headers), **options)
        except InferenceServerException as error:
            failure = translate_failure(self.address, str(error.status()), error.message() or repr(error))
            if self.address.scheme == "grpcs" and isinstance(failure, ServerUnavailableError):
                self._check_certificate()
            raise failure from error
        except TimeoutError as error:
            self._forget_client()
            raise timeout_error(self.address) from error
        except ssl.SSLCertVerificationError as error:
            raise untrusted_error(self.address, error.verify_message) from error
        except (OSError, EOFError, http_errors()) as error:
            self._forget_client()
            raise ServerUnavailableError(f"{self.address} can't be reached: {error or type(error).__name__}") from error

    def _check_certificate(self) -> None:
        """Raise `EngineError` if it is not trusted, which gRPC does not tell from a server that can't be reached."""
        context = ssl.create_default_context(cafile=self._connection.certificates)
        place = (self.address.host, self.address.port)
        try:
            with socket.create_connection(place, min(5.0, self._connection.deadline)) as plain:
                context.wrap_socket(plain, server_hostname=self.address.host).close()
        except ssl.SSLCertVerificationError as error:
            raise untrusted_error(self.address, error.verify_message) from error
        except OSError as error:
            _log.debug("%s: %s", self.address, error)

    def _client(self) -> Any:
        """gRPC's serves all threads; HTTP's is one thread's."""
        if self._shared_client is not None:
            return self._shared_client
        if getattr(self._clients, "own", None) is None:
            self._clients.own = self._new_client()
        return self._clients.own

    def _forget_client(self) -> None:
        """After a failure an HTTP connection may be in the middle of an answer."""
        client = getattr(self._clients, "own", None)
        if client is not None:
            self._clients.own = None
            client.close()

    def _new_client(self) -> Any:
        secure = self.address.scheme in ("grpcs", "https")
        certificates = self._connection.certificates or ssl.get_default_verify_paths().cafile
        if self._is_grpc:
            options: dict[str, Any] = {
                "root_certificates": os.fspath(certificates) if secure and certificates else None,
                # a server that comes back is found within a second; messages are as large as batches are
                "channel_args": [
                    ("grpc.max_reconnect_backoff_ms", 1000),
                    ("grpc.max_send_message_length", -1),
                    ("grpc.max_receive_message_length", -1),
                ],
            }
        else:
            deadline = self._connection.deadline
            options = {"connection_timeout": deadline, "network_timeout": deadline}
            if secure:
                trusted = os.fspath(certificates) if certificates else None
                options["ssl_context_factory"] = lambda: _secure_context(trusted)
        client = self._module.InferenceServerClient(self.address.netloc, ssl=secure, **options)
        self._opened.append(client)
        return client


def _client_module(address: Address) -> ModuleType:
    try:
        if address.scheme in ("grpc", "grpcs"):
            import tritonclient.grpc as module
        else:
            import tritonclient.http as module
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"tritonclient can't be imported ({error}); install causcell[triton] for {address}"
        ) from error
    return module


def _secure_context(certificates: str | None) -> Any:
    from gevent.ssl import create_default_context

    return create_default_context(cafile=certificates)


def _statistics(model: Mapping[str, Any]) -> dict[str, float]:
    stats = model.get("inference_stats", {})

    def milliseconds(name: str) -> float:
        found = stats.get(name, {})
        return round(int(found.get("ns", 0)) / max(int(found.get("count", 0)), 1) / 1e6, 3)

    return {
        "requests": int(stats.get("success", {}).get("count", 0)),
        "failed": int(stats.get("fail", {}).get("count", 0)),
        "executions": int(model.get("execution_count", 0)),
        "rows": int(model.get("inference_count", 0)),
        "queue_ms": milliseconds("queue"),
        "compute_ms": milliseconds("compute_infer"),
    }
