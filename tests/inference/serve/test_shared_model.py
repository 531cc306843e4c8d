"""A real server of a model that a hub gave: its files are links into huggingface_hub's cache."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from engine_contract import zero_inputs
from false_hub import run_hub, use_hub

from causcell.engine.open import open_engine
from causcell.repository.sharing import push
from causcell.serve.server import TritonServer


@pytest.mark.serving
def test_a_server_of_a_shared_model_answers_as_the_folder_does(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="takes causcell[hub]")
    with run_hub() as hub:
        use_hub(monkeypatch, hub.address, tmp_path)
        push(repository, "hf://lab/model", license="cc-by-4.0")
        server = TritonServer("hf://lab/model", threads=1)
    with (
        server,
        contextlib.closing(open_engine(server.grpc)) as served,
        contextlib.closing(open_engine(repository, threads=1)) as local,
    ):
        assert served.manifest == local.manifest
        inputs = zero_inputs(local, "encoder_scm")
        found, expected = (each.run("encoder_scm", inputs, ["endogenous"]) for each in (served, local))
    np.testing.assert_allclose(found["endogenous"], expected["endogenous"], atol=1e-5)
