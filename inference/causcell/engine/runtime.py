"""ONNX Runtime, imported in one place: which package there is, and that it reports to nobody."""

from __future__ import annotations

import importlib
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
