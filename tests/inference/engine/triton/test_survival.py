"""What a client lives through: servers that die, stop, hang or come back; and what it leaves behind when it dies."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from engine_contract import reference_inputs
from paths import shared_memory

from causcell.cells.collection import Cells
from causcell.counterfactual.request import make_request
from causcell.engine.open import open_engine
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.errors import DeadlineExceededError, EngineError, ServerUnavailableError
from causcell.generator import Generator
from causcell.serve.server import TritonServer

pytestmark = pytest.mark.serving


def stubs(server: TritonServer) -> dict[int, str]:
    """Processes of the models' instances, and what each was started for."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            status = (path.parent / "status").read_text()
            if "triton_python_backend_stub" in words[0] and f"NSpgid:\t{server.process.pid}" in status:
                found[int(path.parent.name)] = " ".join(words)
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended may wait for a while to be reaped."""
    try:
        return "\nState:\tZ" not in Path("/proc", str(pid), "status").read_text()
    except OSError:
        return False


def blocks(generator, cells, on_block=lambda number: None):
    """An atlas's expression, block by block."""
    settings = generator.solver_settings(solver="draw", steps=3)
    request = make_request(generator.manifest, {"stim": "IFN"}, settings=settings)
    with generator.bind(Cells(cells)) as bound:
        parts = []
        for number, block in enumerate(generator.generate(bound, request)):
            parts.append(block.arrays["X"])
            on_block(number)
    return np.concatenate(parts)


@pytest.mark.parametrize("memory", [True, False], ids=["shared memory", "grpc"])
def test_a_server_killed_in_the_middle_of_an_atlas(own_server, repository, cells, memory):
    """Killed at the second block and back a second later: complete, and the same as undisturbed."""
    restarted = threading.Event()

    def restart():
        own_server.kill()
        time.sleep(1)
        own_server.start()
        restarted.set()

    def harm(number):
        if number == 1:
            threading.Thread(target=restart).start()

    with Generator.open(own_server.grpc, connection=Connection(shared_memory=memory), batch_size=16) as generator:
        expected = blocks(generator, cells)
        found = blocks(generator, cells, harm)
        assert restarted.wait(60)
    np.testing.assert_array_equal(found, expected)


def test_a_server_stopped_politely_finishes_what_it_has(own_server, generator):
    """Every request that was sent is answered, or refused as unavailable: none is lost, none is wrong."""
    inputs = reference_inputs(generator.engine, 64)
    expected = generator.engine.run("scm", inputs)["endogenous"]
    outcomes = []
    with contextlib.closing(open_engine(own_server.grpc, connection=Connection(patience=0, in_flight=8))) as engine:

        def ask(_):
            try:
                outcomes.append(np.abs(engine.run("scm", inputs)["endogenous"] - expected).max() < 1e-4)
            except ServerUnavailableError:
                outcomes.append(None)

        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(ask, i) for i in range(400)]
            while len(outcomes) < 20:
                time.sleep(0.01)
            own_server.stop()
            for each in waiting:
                each.result(timeout=60)
    assert len(outcomes) == 400
    assert outcomes.count(True) >= 20
    assert False not in outcomes
    assert None in outcomes


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_polite_stop_does_not_wait_for_clients_that_are_idle(own_server, generator, protocol):
    """Triton waits at its end for HTTP connections that are open, for all of its exit timeout: 10 s."""
    with contextlib.closing(open_engine(getattr(own_server, protocol))) as engine:
        engine.run("scm", reference_inputs(generator.engine))
        start = time.monotonic()
        own_server.terminate()
        assert own_server.wait() == 0
        assert time.monotonic() - start < 7


def test_nothing_is_left_of_a_server(repository):
    """Neither processes nor memory: after a stop, and after a kill."""
    before = shared_memory()
    for end in (TritonServer.stop, TritonServer.kill):
        server = TritonServer(repository, threads=1)
        server.start()
        own = stubs(server)
        assert len(own) == len(server.manifest.graphs) + 1
        end(server)
        dead_by = time.monotonic() + 5  # the kernel takes a moment to end a killed process
        while any(alive(pid) for pid in own):
            assert time.monotonic() < dead_by
        assert shared_memory() <= before
        server.close()


KILLED_CLIENT = """
import sys
import numpy as np
from causcell.engine.open import open_engine
engine = open_engine(sys.argv[1])
engine.run("encoder_scm", {"expression": np.zeros((64, 50), dtype=np.float32)})
print("registered", flush=True)
sys.stdin.read()
"""


def test_a_client_killed_with_memory_registered_leaves_none(server, generator):
    """Its file is gone at once; what the server still maps is given up when the next client comes."""
    before = shared_memory()
    words = [sys.executable, "-c", KILLED_CLIENT, server.grpc]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as client,
        contextlib.closing(TritonClient(*parse_location(server.grpc), Connection(shared_memory=False))) as watcher,
    ):
        assert client.stdout.readline() == "registered\n"
        mine = f"-{client.pid}-"
        assert any(mine in name for name in watcher.shared_regions())
        client.kill()
        client.wait()
        assert shared_memory() <= before
        with contextlib.closing(open_engine(server.grpc)) as engine:
            np.testing.assert_allclose(
                engine.run("scm", reference_inputs(generator.engine))["endogenous"],
                generator.engine.run("scm", reference_inputs(generator.engine))["endogenous"],
                atol=1e-4,
            )
        assert not any(mine in name for name in watcher.shared_regions())


def test_many_clients_at_once(server, generator):
    """32, over both protocols, each its own rows, for three seconds: no answer is wrong, none is missing."""
    inputs = reference_inputs(generator.engine, 96)
    expected = generator.engine.run("scm", inputs)["endogenous"]
    end = time.monotonic() + 3

    def client(number):
        rows = slice(number, number + 1 + number % 7)
        mine = {name: each[rows] for name, each in inputs.items()}
        location = server.http if number % 4 == 0 else server.grpc
        answers = 0
        with contextlib.closing(open_engine(location, connection=Connection(in_flight=1))) as engine:
            while time.monotonic() < end or answers < 3:
                np.testing.assert_allclose(engine.run("scm", mine)["endogenous"], expected[rows], atol=1e-4)
                answers += 1
        return answers

    with ThreadPoolExecutor(32) as pool:
        assert min(pool.map(client, range(32))) >= 3


def test_a_models_process_that_died_is_an_engine_error_that_says_so(own_server, generator):
    with contextlib.closing(open_engine(own_server.grpc, connection=Connection(deadline=20))) as engine:
        for pid in stubs(own_server):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"a model's process died.*restart the server"):
            engine.run("scm", reference_inputs(generator.engine))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_is_not_there(protocol):
    with pytest.raises(ServerUnavailableError, match=rf"{protocol}://127.0.0.1:9"):
        open_engine(f"{protocol}://127.0.0.1:9", connection=Connection(patience=0.3))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_hangs(own_server, generator, protocol):
    """Stopped as a process is, not ended: the deadline is what ends the wait."""
    location, connection = getattr(own_server, protocol), Connection(deadline=0.5, patience=0.1)
    with contextlib.closing(open_engine(location, connection=connection)) as engine:
        own_server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceededError, match="did not answer within the deadline"):
                engine.run("scm", reference_inputs(generator.engine))
        finally:
            own_server.process.send_signal(signal.SIGCONT)
        assert open_engine(location).run("scm", reference_inputs(generator.engine))


def test_work_goes_on_with_the_servers_that_are_left(server, own_server, generator, caplog):
    """Of two, one is killed: no call fails, the dead one is left alone, and work is spread again when it is back."""
    inputs = reference_inputs(generator.engine)
    location = f"{own_server.grpc},{server.grpc}"
    with contextlib.closing(open_engine(location, connection=Connection(patience=30))) as engine:

        def ask(_):
            return engine.run("scm", inputs)["endogenous"]

        def requests():
            return {address: models["scm"]["requests"] for address, models in engine.statistics().items()}

        before = requests()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(40)))
            shared = {address: count - before[address] for address, count in requests().items()}
            assert min(shared.values()) >= 1  # each takes what it is quick enough for: one in 20 where it is starved
            own_server.kill()
            caplog.clear()
            answers = list(pool.map(ask, range(40)))
            assert len(answers) == 40
            ejections = [record for record in caplog.records if "leaving it alone" in record.message]
            assert 1 <= len(ejections) <= 10
            own_server.start()
            time.sleep(2)
            before = requests()
            list(pool.map(ask, range(200)))
            after = requests()
    assert after[own_server.grpc] - before[own_server.grpc] >= 20
