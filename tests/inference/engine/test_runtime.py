"""ONNX Runtime reports to nobody, unless it is asked to."""

import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from paths import MODEL_REPOSITORY, ROOT

from causcell._internal.telemetry import TELEMETRY_VARIABLE
from causcell.engine.runtime import load_runtime

OPEN = """
import sys
from causcell.engine.open import open_engine
import numpy as np
engine = open_engine(sys.argv[1], threads=1)
engine.run("encoder_scm", {"expression": np.zeros((1, 765), dtype=np.float32)})
"""


def files_left(home: Path, **environment: str) -> set[str]:
    """Open a model in a process whose user has the home folder ``home``; return the names of the files it leaves."""
    paths = os.pathsep.join(str(ROOT / each) for each in ("inference", "training", "export"))
    subprocess.run(
        [sys.executable, "-B", "-c", OPEN, str(MODEL_REPOSITORY)],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": paths} | environment,
        check=True,
        cwd=home,
    )
    return {path.name for path in home.rglob("*") if path.is_file()}


def test_opening_a_model_leaves_no_identity_and_no_store_of_events(tmp_path: Path) -> None:
    assert files_left(tmp_path) == set()


@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29), reason="versions that report are from 1.29 on"
)
def test_whoever_asks_for_it_has_it(tmp_path: Path) -> None:
    """This is what the test above would find, were telemetry left as ONNX Runtime has it."""
    assert "deviceid" in files_left(tmp_path, **{TELEMETRY_VARIABLE: "0"})


def test_a_runtime_that_was_imported_before_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: called.append("off"))
    monkeypatch.delenv(TELEMETRY_VARIABLE, raising=False)
    load_runtime()
    assert called == ["off"]
    assert os.environ[TELEMETRY_VARIABLE] == "1"
    monkeypatch.setenv(TELEMETRY_VARIABLE, "0")
    load_runtime()
    assert called == ["off"]


def test_it_is_imported_in_one_place() -> None:
    """The other is a server's own process, which has no causcell and sets the variable itself."""
    importing = {
        path.relative_to(ROOT).as_posix()
        for package in ("inference", "training", "export")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(import|from) onnxruntime\b|import_module\(.onnxruntime", path.read_text(), re.MULTILINE)
    }
    backend = "inference/causcell/serve/backend/model.py"
    assert importing == {"inference/causcell/engine/runtime.py", backend}
    text = (ROOT / backend).read_text()
    assert text.index(f'os.environ.setdefault("{TELEMETRY_VARIABLE}", "1")') < text.index("import onnxruntime")
