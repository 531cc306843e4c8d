"""Shared memory that a server has forgotten: a new region is taken; where there is none to be had, the wire is."""

import contextlib
from urllib.request import Request, urlopen

import numpy as np
import pytest
from paths import shared_memory

from causcell.engine.open import open_engine
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.engine.triton.failures import RegionForgottenError
from causcell.engine.triton.tensors import Place
from causcell.errors import EngineError
from causcell.serve.server import TritonServer

pytestmark = pytest.mark.serving

INPUTS = {"expression": np.ones((16, 50), np.float32)}


def forget_all(server: TritonServer) -> None:
    """What any client may do to all others."""
    with urlopen(Request(f"{server.http}/v2/systemsharedmemory/unregister", method="POST", data=b"")):
        pass


def regions(server: TritonServer) -> list[str]:
    watcher = TritonClient(*parse_location(server.grpc), Connection(shared_memory=False))
    with contextlib.closing(watcher):
        return watcher.shared_regions()


@pytest.fixture(scope="module")
def forgetful_server(repository):
    """One that other tests do not share regions with."""
    with TritonServer(repository, threads=1) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def engine(request, forgetful_server):
    with contextlib.closing(
        open_engine(getattr(forgetful_server, request.param), connection=Connection(patience=0))
    ) as it:
        yield it


@pytest.fixture
def expected(generator):
    return generator.engine.run("encoder_scm", INPUTS)["endogenous"]


def check(engine, expected) -> None:
    np.testing.assert_allclose(engine.run("encoder_scm", INPUTS)["endogenous"], expected, atol=1e-4)


def test_regions_that_another_client_made_the_server_forget(forgetful_server, engine, expected, caplog):
    """Again and again, with no patience: it is no failure of the server; and memory goes on being shared."""
    memory = shared_memory()
    for _ in range(3):
        forget_all(forgetful_server)
        assert regions(forgetful_server) == []
        check(engine, expected)
        assert len(regions(forgetful_server)) == 1
    assert "no more memory to share" not in caplog.text
    assert shared_memory() <= memory


def test_regions_of_a_server_that_restarted_while_idle(forgetful_server, engine, expected, caplog):
    check(engine, expected)
    forgetful_server.stop()
    forgetful_server.start()
    check_eventually(engine, expected)
    assert len(regions(forgetful_server)) == 1
    assert "no more memory to share" not in caplog.text


def check_eventually(engine, expected) -> None:
    """gRPC may find out by a request that its connection is gone."""
    for _ in range(20):
        with contextlib.suppress(EngineError):
            check(engine, expected)
            return
    check(engine, expected)


def test_a_server_that_forgets_every_region_gets_arrays_by_the_wire(
    forgetful_server, engine, expected, monkeypatch, caplog
):
    """Said once."""
    (client,) = engine._endpoints
    infer = client._transport.infer

    def forgetful(model, inputs, outputs, places):
        if places:
            forget_all(forgetful_server)
        return infer(model, inputs, outputs, places)

    monkeypatch.setattr(client._transport, "infer", forgetful)
    for _ in range(2):
        check(engine, expected)
    assert caplog.text.count("no more memory to share") == 1
    assert regions(forgetful_server) == []


def test_a_server_that_maps_no_region_any_more_gets_arrays_by_the_wire(
    forgetful_server, engine, expected, monkeypatch, caplog
):
    """As one that was started again without --allow-client-shm."""
    (client,) = engine._endpoints
    forget_all(forgetful_server)

    def refuse(name, key, size):
        raise EngineError("shared memory is not allowed")

    monkeypatch.setattr(client._transport, "register_region", refuse)
    check(engine, expected)
    assert caplog.text.count("no more memory to share") == 1


def test_a_region_is_forgotten_in_the_servers_own_words(server):
    """The message that is looked for is the one that a server gives."""
    for location in (server.grpc, server.http):
        with contextlib.closing(TritonClient(*parse_location(location), Connection())) as client:
            places = {"expression": Place("nobody's", 0, INPUTS["expression"].nbytes)}
            with pytest.raises(RegionForgottenError, match="nobody's"):
                client._transport.infer("encoder_scm", INPUTS, {"endogenous": ("float32", (16, 3, 8))}, places)
