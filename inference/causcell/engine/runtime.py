"""ONNX Runtime, imported in one place: which package there is, and that it reports to nobody."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from types import ModuleType

from causcell._internal.telemetry import TELEMETRY_VARIABLE
from causcell._internal.versions import installed_versions
from causcell.errors import RuntimeUnavailableError

_ASKED_FOR = ("0", "false", "no", "off", "n")


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, its telemetry turned off unless `TELEMETRY_VARIABLE` asks for it.

    Its wheels report by default: they keep an identity of the device and a store of events in the user's cache, and
    send names of files, shapes of models and hardware at each opening of a model.

    Raises
    ------
    RuntimeUnavailableError
        It can't be imported, or two packages of it overwrite each other.
    """
    if len(installed_versions("onnxruntime", "onnxruntime-gpu")) == 2:
        raise RuntimeUnavailableError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; uninstall both, then install "
            "one: causcell[cpu] or causcell[gpu]"
        )
    wanted = os.environ.setdefault(TELEMETRY_VARIABLE, "1").lower() in _ASKED_FOR
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime can't be imported ({error}); install causcell[cpu] or causcell[gpu]"
        ) from error
    if not wanted:  # another package may have imported it before the variable was there
        runtime.disable_telemetry_events()
    return runtime


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA's and cuDNN's libraries from NVIDIA's packages beside ONNX Runtime, or from where the system has them.

    ONNX Runtime looks where the system does, alone: it would not find those that pip installed, unless torch was
    imported before.

    Parameters
    ----------
    runtime
        ONNX Runtime, as `load_runtime` returns it.

    Returns
    -------
    What it said of libraries that it did not find, on one line; empty where all are there.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # what a command prints is its answer
        getattr(runtime, "preload_dlls", lambda: None)()  # the build for CPUs alone may have none
    return "; ".join(line.strip() for line in said.getvalue().splitlines() if line.startswith("Failed"))
