"""The contract of engines, on a real Triton by each way to it."""

import contextlib

import pytest
from engine_contract import EngineContract, zero_inputs

from causcell.engine.open import open_engine
from causcell.engine.triton.connection import Connection
from causcell.errors import EngineError

pytestmark = pytest.mark.serving

WAYS = {
    "grpc": ("grpc", Connection(shared_memory=False)),
    "grpc, shared memory": ("grpc", Connection()),
    "http": ("http", Connection(shared_memory=False)),
    "http, shared memory": ("http", Connection()),
}


@pytest.fixture(scope="module", params=WAYS)
def engine(request, server):
    protocol, connection = WAYS[request.param]
    with contextlib.closing(open_engine(getattr(server, protocol), connection=connection)) as opened:
        yield opened


class TestTritonEngine(EngineContract):
    """The contract, against ONNX Runtime in this process."""

    @pytest.fixture
    def embedded(self, generator):
        return generator.engine

    def test_its_status_is_the_servers(self, engine):
        (endpoint,) = engine.status()
        assert engine.threads is None
        assert (endpoint["address"], endpoint["runtime"]) == (engine.location, "Triton")
        models = {model["name"]: model for model in endpoint["models"]}
        assert set(models) == {*engine.manifest.graphs, "reference"} == set(endpoint["statistics"])
        assert {model["state"] for model in models.values()} == {"READY"}
        assert models["scm"]["max_batch_size"] == 1024
        assert endpoint["statistics"]["reference"]["rows"] > 0

    def test_more_rows_than_the_server_takes(self, engine):
        with pytest.raises(
            EngineError, match=r"was given 1025 rows; .* takes 1024 at once: take a smaller batch_size="
        ):
            engine.run("scm", zero_inputs(engine, "scm", 1025))
