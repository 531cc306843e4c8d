"""The command line of ``tritonserver``: of the one on the PATH, or of the one beside this environment."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from causcell._internal.cpus import available_cpus
from causcell.errors import RuntimeUnavailableError
from causcell.serve.install import Installation, default_installation

_THREADS_VARIABLE = "CAUSCELL_TRITON_THREADS"  # read by causcell/serve/backend/model.py


def find_server(scratch: Path, memory_prefix: str, threads: int | None) -> tuple[list[str], dict[str, str]]:
    """Find a Triton server: on the PATH, as in NVIDIA's container, or the one that `causcell.serve.install` laid down.

    Parameters
    ----------
    scratch
        Folder for what the server needs while it runs.
    memory_prefix
        Start of the names of its models' files in ``/dev/shm``.
    threads
        Compute threads of each model; the CPUs that the server may use, if not given.

    Returns
    -------
    Start of the command line, and the environment of the process.

    Raises
    ------
    RuntimeUnavailableError
        There is no Triton here, or it lacks the shared library of this Python.
    """
    native = shutil.which("tritonserver")
    if native is not None:
        return _native_command(native, threads), dict(os.environ)
    installation = default_installation()
    if not installation.binary.exists():
        raise RuntimeUnavailableError(
            "there is no tritonserver on the PATH, and none beside this environment; lay one down with "
            "`make triton` (python -m causcell.serve.install), or run inside NVIDIA's container"
        )
    command = [
        str(installation.binary),
        f"--backend-directory={_lay_out_backends(installation, scratch / 'backends')}",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
        "--backend-config=python,shm-default-byte-size=16777216",
    ]
    environment = os.environ | {
        "PATH": f"{installation.environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": _library_folder(),
        _THREADS_VARIABLE: str(threads or available_cpus()),
    }
    return command, environment


def _native_command(binary: str, threads: int | None) -> list[str]:
    command = [binary]
    if threads is not None:
        command += [
            "--backend-config=onnxruntime,enable-global-threadpool=1",
            f"--backend-config=onnxruntime,intra_op_thread_count={threads}",
        ]
    if "--allow-client-shm" in subprocess.run([binary, "--help"], capture_output=True, text=True).stdout:
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
