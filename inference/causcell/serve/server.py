"""A Triton server on loopback, for development and tests: NVIDIA's own binary, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from causcell.engine.providers import check_provider
from causcell.errors import ConfigurationError, RuntimeUnavailableError, ServerUnavailableError, format_list
from causcell.repository.folder import open_repository
from causcell.repository.hub import repository_folder
from causcell.repository.manifest import MANIFEST_FILE, Manifest
from causcell.serve.command import find_server
from causcell.serve.process import spawn

_HOST = "127.0.0.1"

_CONFIGURATIONS = {"cuda": "gpu"}
"""Configurations of the repository that stand in ``configs/NAME.pbtxt``, by provider; ``config.pbtxt`` is for CPUs."""

_BACKEND = re.compile(r'^backend: "([^"]*)"', re.MULTILINE)
_THREADS = 'key: "intra_op_thread_count"'
"""Lines of configurations, as ``causcell export`` writes them."""

_EXIT_TIMEOUT = 10
"""Seconds that a server waits at its end for requests in flight, and for HTTP connections that clients leave open."""


class TritonServer:
    """Serve one model repository; a context manager.

    Parameters
    ----------
    repository
        Its folder, or its name on a hub, ``hf://OWNER/NAME[@REVISION]``.
    http_port, grpc_port
        Ports on loopback; a free one each, if not given or 0.
    threads
        Compute threads of each model; as its configuration says, and else the CPUs that the server may use, if not
        given.
    provider
        One of `causcell.engine.providers.PROVIDERS`: ``cpu`` (if not given), or ``cuda``, by the configurations for
        GPUs that every repository holds.
    log
        File for the server's output; a temporary one, removed with the server, if not given.
    options
        Further options of ``tritonserver``.
    verify
        Check every digest. Turn it off to serve a repository whose configurations were changed on purpose.

    Attributes
    ----------
    manifest
        Manifest of the repository.
    process
        The running process; `None` before `start` and after the end.
    not_served
        Models of the repository that this server has no backend for, known after `start`; they are left out.

    Raises
    ------
    ConfigurationError
        A port is taken, or there is no such provider.
    ModelRepositoryError
        The repository can't be used.
    RuntimeUnavailableError
        The repository has no configurations for the provider.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        http_port: int | None = None,
        grpc_port: int | None = None,
        threads: int | None = None,
        provider: str | None = None,
        log: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
        verify: bool = True,
    ) -> None:
        self.repository = repository_folder(repository).absolute()
        self.manifest = _read_manifest(self.repository, verify)
        self.http_port, self.grpc_port = _choose_ports(http_port, grpc_port)
        self._threads = threads
        self._options = [*_provider_options(provider, self.repository, self.manifest), *options]
        self._scratch = tempfile.TemporaryDirectory(prefix="causcell-triton-")
        self.log = Path(log) if log is not None else Path(self._scratch.name) / "triton.log"
        self._memory_prefix = f"causcell_triton_{uuid.uuid4().hex[:12]}"
        self.process: subprocess.Popen[bytes] | None = None
        self.not_served: list[str] = []

    @property
    def grpc(self) -> str:
        """Location for a client that speaks gRPC."""
        return f"grpc://{_HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        """Location for a client that speaks HTTP."""
        return f"http://{_HOST}:{self.http_port}"

    def __enter__(self) -> TritonServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self, timeout: float = 120.0) -> None:
        """Start, and wait until every model is ready.

        Parameters
        ----------
        timeout
            Seconds to wait.

        Raises
        ------
        ServerUnavailableError
            It ended, or was not ready in time; the message has what its log says.
        RuntimeUnavailableError
            There is no Triton here.
        """
        scratch = Path(self._scratch.name)
        program = find_server(scratch, self._memory_prefix, self._threads, self._sets_threads)
        folder = self._choose_models(program.backends, scratch / "models")
        self.process = spawn([*program.command, *self._common_options(folder)], program.environment, self.log)
        end = time.monotonic() + timeout
        try:
            while not self.is_ready():
                if self.process.poll() is not None:
                    raise ServerUnavailableError(f"Triton ended while it started: {self._complaint()}")
                if time.monotonic() > end:
                    raise ServerUnavailableError(f"Triton was not ready in {timeout:.0f} s: {self._complaint()}")
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def is_ready(self) -> bool:
        """Tell if the server runs and all models are ready."""
        try:
            with urlopen(f"{self.http}/v2/health/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def wait(self) -> int:
        """Wait until the server ends, and return its exit status; 0 if it does not run."""
        return 0 if self.process is None else self.process.wait()

    def stop(self, grace: float = 15.0) -> None:
        """End the server after the requests in flight, and all its processes; nothing is left in shared memory.

        Parameters
        ----------
        grace
            Seconds after which it is killed.
        """
        if self.process is None:
            return
        try:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        finally:  # interrupted again, too
            self.kill()

    def terminate(self) -> None:
        """Ask the server to end, without waiting."""
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """End the server and its models' processes at once."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        for region in Path("/dev/shm").glob(f"{self._memory_prefix}*"):
            region.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop, and remove temporary files."""
        try:
            self.stop()
        finally:
            self._scratch.cleanup()

    def _sets_threads(self) -> bool:
        """Tell if the configurations of all graphs say how many threads they have."""
        texts = [_read_config(self.repository / graph) for graph in self.manifest.graphs]
        return all(_THREADS in text for text in texts)

    def _choose_models(self, backends: frozenset[str] | None, folder: Path) -> Path:
        """Return the repository, or a folder of links to those of its models that a server has backends for."""
        if backends is None:
            return self.repository
        models = sorted(path.parent for path in self.repository.glob("*/config.pbtxt"))
        found = {model: _BACKEND.search(_read_config(model)) for model in models}
        self.not_served = [model.name for model, name in found.items() if name and name[1] not in backends]
        if not self.not_served:
            return self.repository
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for model in models:
            if model.name not in self.not_served:
                (folder / model.name).symlink_to(model)
        return folder

    def _common_options(self, models: Path) -> list[str]:
        return [
            f"--model-repository={models}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            f"--http-address={_HOST}",
            f"--http-port={self.http_port}",
            f"--grpc-address={_HOST}",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
            f"--exit-timeout-secs={_EXIT_TIMEOUT}",
            *self._options,
        ]

    def _complaint(self) -> str:
        """Return what the log says of a start that failed."""
        text = self.log.read_text(errors="replace")
        found = re.findall(r"(?:failed to (?:load|start) '?\w+'? |unrecognized option ).*", text)
        lines = found or text.strip().splitlines()[-3:]
        return " / ".join(line.partition(r"\n")[0].strip(' |"')[:300] for line in lines[:3]) or "it wrote no log"


def _read_config(model: Path) -> str:
    try:
        return (model / "config.pbtxt").read_text(errors="replace")
    except OSError:
        return ""


def _read_manifest(repository: Path, verify: bool) -> Manifest:
    if verify:
        return open_repository(repository).manifest
    path = repository / MANIFEST_FILE
    return Manifest.from_json(path.read_bytes(), str(path))


def _provider_options(provider: str | None, repository: Path, manifest: Manifest) -> list[str]:
    name = _CONFIGURATIONS.get(check_provider(provider or "cpu"))
    if name is None:
        return []
    absent = [graph for graph in manifest.graphs if not (repository / graph / "configs" / f"{name}.pbtxt").is_file()]
    if absent:  # Triton would run these on the CPU and not say so
        raise RuntimeUnavailableError(
            f"provider {provider!r} needs configs/{name}.pbtxt beside each graph, which {format_list(absent)} in "
            f"{str(repository)!r} lack; export again"
        )
    return [f"--model-config-name={name}"]


def _choose_ports(http_port: int | None, grpc_port: int | None) -> tuple[int, int]:
    """Choose both ports, the one given or any: free now, and not the same."""
    if http_port and http_port == grpc_port:
        raise ConfigurationError(f"port {http_port} can't be for HTTP and gRPC both; give another, or 0 for a free one")
    with socket.socket() as http, socket.socket() as grpc:  # both are held, or the system may give the same one twice
        if http_port:
            return _hold_port(http, http_port), _hold_port(grpc, grpc_port)
        chosen = _hold_port(grpc, grpc_port)  # a given one first: none that is free can be it
        return _hold_port(http, http_port), chosen


def _hold_port(probe: socket.socket, port: int | None) -> int:
    """Bind a socket to the port, or to any that is free, and return which it is."""
    if port:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
    try:
        probe.bind((_HOST, port or 0))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"port {port} can't be had ({error}); give another, or 0 for a free one") from error
    return int(probe.getsockname()[1])
