"""A Triton server on loopback, for development and tests: NVIDIA's own binary, in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from causcell.errors import ConfigurationError, RuntimeUnavailableError, ServerUnavailableError
from causcell.repository.folder import open_repository
from causcell.repository.manifest import Manifest
from causcell.serve.install import Installation, default_installation

_HOST = "127.0.0.1"


_THREADS_VARIABLE = "CAUSCELL_TRITON_THREADS"


_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class TritonServer:
    """A server of one model repository; a context manager.

    Parameters
    ----------
    repository
        Its folder; every digest is checked.
    http_port, grpc_port
        A free one each, if not given.
    threads
        Compute threads of each model; the CPUs that the server may use, if not given.
    log
        File for the server's output; a temporary one, removed with the server, if not given.
    options
        More of ``tritonserver``'s own.

    Raises
    ------
    ConfigurationError
        A port is taken.
    ModelRepositoryError
        The repository can't be used.
    RuntimeUnavailableError
        There is no Triton here.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        http_port: int | None = None,
        grpc_port: int | None = None,
        threads: int | None = None,
        log: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.repository = Path(repository).absolute()
        self.manifest = self._read_manifest()
        self.http_port, self.grpc_port = (_checked_port(port) for port in (http_port, grpc_port))
        self._threads = threads
        self._options = list(options)
        self._scratch = tempfile.TemporaryDirectory(prefix="causcell-triton-")
        self.log = Path(log) if log is not None else Path(self._scratch.name) / "triton.log"
        self._memory_prefix = f"causcell_triton_{uuid.uuid4().hex[:12]}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> str:
        """Location for a client."""
        return f"grpc://{_HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        """Location for a client."""
        return f"http://{_HOST}:{self.http_port}"

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self, timeout: float = 120.0) -> None:
        """Start, and wait until every model is ready.

        Raises
        ------
        ServerUnavailableError
            It ended, or was not ready in time; the message has what its log says.
        """
        command, environment = self._command()
        self.process = self._spawn(command, environment)
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

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """From a thread that lives as long as the server: the kernel's "parent", whose end it follows, is a thread."""
        spawned: Future[subprocess.Popen[bytes]] = Future()

        def live() -> None:
            try:
                with self.log.open("ab") as log:
                    process = subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        env=environment,
                        start_new_session=True,
                        preexec_fn=_die_with_parent,
                    )
            except BaseException as error:
                spawned.set_exception(error)
            else:
                spawned.set_result(process)
                process.wait()

        threading.Thread(target=live, name="causcell-triton", daemon=True).start()
        return spawned.result()

    def is_ready(self) -> bool:
        """Whether it runs, and all models are ready."""
        try:
            with urlopen(f"{self.http}/v2/health/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def wait(self) -> int:
        """Until the process ends; its exit status."""
        assert self.process is not None
        return self.process.wait()

    def stop(self, grace: float = 15.0) -> None:
        """Let requests in flight finish, then end the server and all its processes; nothing is left in memory."""
        if self.process is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
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
        self.stop()
        self._scratch.cleanup()

    def _read_manifest(self) -> Manifest:
        return open_repository(self.repository).manifest

    def _command(self) -> tuple[list[str], dict[str, str]]:
        native = shutil.which("tritonserver")
        environment = dict(os.environ)
        if native is not None:
            command = [native]
            if self._threads is not None:
                command += [
                    "--backend-config=onnxruntime,enable-global-threadpool=1",
                    f"--backend-config=onnxruntime,intra_op_thread_count={self._threads}",
                ]
            if "--allow-client-shm" in subprocess.run([native, "--help"], capture_output=True, text=True).stdout:
                command.append("--allow-client-shm=true")
        else:
            installation = default_installation()
            if not installation.binary.exists():
                raise RuntimeUnavailableError(
                    "there is no tritonserver on the PATH, and none beside this environment; lay one down with "
                    "`make triton` (python -m causcell.serve.install), or run inside NVIDIA's container"
                )
            backends = self._stand_in(installation)
            command = [
                str(installation.binary),
                f"--backend-directory={backends}",
                f"--backend-config=python,shm-region-prefix-name={self._memory_prefix}",
                "--backend-config=python,shm-default-byte-size=16777216",
            ]
            environment |= {
                "PATH": f"{installation.environment / 'bin'}{os.pathsep}{environment.get('PATH', '')}",
                "LD_LIBRARY_PATH": _library_folder(),
                _THREADS_VARIABLE: str(self._threads or len(os.sched_getaffinity(0))),
            }
        command += [
            f"--model-repository={self.repository}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            f"--http-address={_HOST}",
            f"--http-port={self.http_port}",
            f"--grpc-address={_HOST}",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
            "--exit-timeout-secs=10",
            *self._options,
        ]
        return command, environment

    def _stand_in(self, installation: Installation) -> Path:
        """A folder of backends: the Python one, and under the name ``onnxruntime`` the one that stands in for it."""
        backends = Path(self._scratch.name) / "backends"
        if not backends.exists():
            backends.mkdir()
            (backends / "python").symlink_to(installation.python_backend)
            (backends / "onnxruntime").mkdir()
            (backends / "onnxruntime" / "model.py").symlink_to(Path(__file__).parent / "backend" / "model.py")
        return backends

    def _complaint(self) -> str:
        text = self.log.read_text(errors="replace")
        found = re.findall(r"(?:failed to (?:load|start) '?\w+'? |unrecognized option ).*", text)
        lines = found or text.strip().splitlines()[-3:]
        return " / ".join(line.partition(r"\n")[0].strip(' |"')[:300] for line in lines[:3]) or "it wrote no log"


def _checked_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port or 0))
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"port {port} can't be had ({error}); give another, or 0 for a free one"
            ) from error
        return int(probe.getsockname()[1])


def _library_folder() -> str:
    """Where the shared library of this Python is, which the models' processes load."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    try:
        ctypes.CDLL(str(Path(folder) / name) if (Path(folder) / name).exists() else name)
    except (OSError, TypeError) as error:
        raise RuntimeUnavailableError(
            f"Triton's models need the shared library of this Python ({error}); install it (Debian: libpython3-dev), "
            "or take a Python that was built with --enable-shared"
        ) from error
    return str(folder)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGTERM)
