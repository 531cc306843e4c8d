"""The command line of ``tritonserver``: of the one on the PATH, or of the one beside this environment."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.cpus import available_cpus
from causcell._internal.telemetry import TELEMETRY_VARIABLE
from causcell.errors import RuntimeUnavailableError
from causcell.serve.install import Installation, default_installation

_THREADS_VARIABLE, _CPUS_VARIABLE = "CAUSCELL_TRITON_THREADS", "CAUSCELL_TRITON_CPUS"
"""Read by ``causcell/serve/backend/model.py``: threads that were asked for, and what to take where nobody says."""

_OWN_ENVIRONMENT = {TELEMETRY_VARIABLE: "1"}
"""What a server is told unless the user's environment says otherwise."""


@dataclass(frozen=True)
class Program:
    """A Triton server that can be started.

    Attributes
    ----------
    command
        Start of the command line.
    environment
        Environment of the process.
    backends
        Backends that it has; `None`: all of Triton's, as NVIDIA's container.
    """

    command: list[str]
    environment: dict[str, str]
    backends: frozenset[str] | None


def find_server(
    scratch: Path, memory_prefix: str, threads: int | None, configured: Callable[[], bool] = lambda: False
) -> Program:
    """Find a Triton server: on the PATH, as in NVIDIA's container, or the one that `causcell.serve.install` laid down.

    Parameters
    ----------
    scratch
        Folder for what the server needs while it runs.
    memory_prefix
        Start of the names of its models' files in ``/dev/shm``.
    threads
        Compute threads of each model; as the models' configurations say, and else the CPUs that the server may use, if
        not given.
    configured
        Tells if the models' configurations say how many threads they have.

    Raises
    ------
    RuntimeUnavailableError
        There is no Triton here, or it lacks the shared library of this Python.
    """
    native = shutil.which("tritonserver")
    if native is not None:
        all_threads = None if threads is None and configured() else threads or available_cpus()
        return Program(_native_command(native, all_threads), _OWN_ENVIRONMENT | os.environ, None)
    installation = default_installation()
    if not installation.binary.exists():
        raise RuntimeUnavailableError(
            "there is no tritonserver on the PATH, and none beside this environment; lay one down with "
            "`python -m causcell.serve.install` (in a checkout: make triton), or run inside NVIDIA's container"
        )
    command = [
        str(installation.binary),
        f"--backend-directory={_lay_out_backends(installation, scratch / 'backends')}",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
        "--backend-config=python,shm-default-byte-size=16777216",
    ]
    environment = (
        _OWN_ENVIRONMENT
        | os.environ
        | {
            "PATH": f"{installation.environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": _library_folder(),
            _CPUS_VARIABLE: str(available_cpus()),
        }
    )
    if threads is not None:
        environment[_THREADS_VARIABLE] = str(threads)
    return Program(command, environment, frozenset({"onnxruntime", "python"}))


def _native_command(binary: str, threads: int | None) -> list[str]:
    """Return the command line of a server with the native backend: without a setting each model takes all CPUs."""
    command = [binary]
    if threads is not None:
        command += [
            "--backend-config=onnxruntime,enable-global-threadpool=1",
            f"--backend-config=onnxruntime,intra_op_thread_count={threads}",
            "--backend-config=onnxruntime,inter_op_thread_count=1",
        ]
    told = subprocess.run([binary, "--help"], capture_output=True, text=True)  # it prints to standard error
    if "--allow-client-shm" in told.stdout + told.stderr:
        command.append("--allow-client-shm=true")  # 26.04 and newer share no memory unless asked to
    return command


def _lay_out_backends(installation: Installation, folder: Path) -> Path:
    """Make a folder of backends: the Python one, and the one that stands in for ``onnxruntime`` under its name."""
    if not folder.exists():
        folder.mkdir()
        (folder / "python").symlink_to(installation.python_backend)
        (folder / "onnxruntime").mkdir()
        (folder / "onnxruntime" / "model.py").symlink_to(Path(__file__).parent / "backend" / "model.py")
    return folder


def _library_folder() -> str:
    """Find the folder of this Python's shared library, which the models' processes load."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    try:
        ctypes.CDLL(str(Path(folder) / name) if (Path(folder) / name).exists() else name)
    except (OSError, TypeError) as error:
        raise RuntimeUnavailableError(
            f"Triton's models need the shared library of this Python ({error}); install it (Debian: libpython3-dev), "
            "or take a Python that was built with --enable-shared"
        ) from error
    return str(folder)
