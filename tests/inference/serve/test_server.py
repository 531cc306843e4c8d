"""``causcell serve`` and what it starts: as a process of its own, on given or free ports, and gone when it is ended."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import shared_memory

from causcell._internal.cpus import available_cpus
from causcell.cli.main import main
from causcell.engine.open import open_engine
from causcell.errors import ConfigurationError, CorruptFileError, RuntimeUnavailableError, ServerUnavailableError
from causcell.serve import command as serve_command
from causcell.serve.install import Installation
from causcell.serve.server import TritonServer

pytestmark = pytest.mark.serving


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@contextlib.contextmanager
def serve(*words: object) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """A process of the command, and its two lines; killed if it is not ended by the test."""
    command = [Path(sys.executable).parent / "causcell", "serve", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, [process.stdout.readline(), process.stdout.readline()]
        finally:
            process.kill()


def check_gone(pids: set[int]) -> None:
    """The kernel takes a moment to end a killed process."""
    dead_by = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < dead_by
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    children = {
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    }
    return children.union(*map(descendants, children))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_command_serves_until_it_is_ended_and_leaves_nothing(repository, generator, tmp_path, number):
    memory = shared_memory()
    log = tmp_path / "triton.log"
    with serve(repository, "--http-port", 0, "--grpc-port", 0, "--threads", 1, "--log", log) as (process, lines):
        grpc, http = re.fullmatch(
            rf"serving {repository} \(\w{{12}}\) at (grpc://127.0.0.1:\d+) and (http://127.0.0.1:\d+)\n", lines[0]
        ).groups()
        assert str(log) in lines[1]
        for location in (grpc, http):
            with contextlib.closing(open_engine(location)) as engine:
                assert engine.manifest == generator.manifest
        started = descendants(process.pid)
        assert len(started) == len(generator.manifest.graphs) + 2  # and the reference cells', and Triton itself
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    check_gone(started)
    assert shared_memory() <= memory
    assert "decoder" in log.read_text()


def test_the_server_ends_with_the_command_that_is_killed(repository):
    """Its processes end by themselves, though nobody is left to ask them."""
    with serve(repository, "--http-port", 0, "--grpc-port", 0) as (process, _):
        started = descendants(process.pid)
        assert started
        process.kill()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                assert select.select([handle], [], [], 30)[0]
                os.close(handle)


def test_given_ports_are_taken_and_a_taken_one_is_refused(repository, server):
    with pytest.raises(ConfigurationError, match=rf"port {server.grpc_port} can't be had.*0 for a free one"):
        TritonServer(repository, grpc_port=server.grpc_port)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with TritonServer(repository, http_port=free, threads=1) as own:
        assert own.http == f"http://127.0.0.1:{free}"
    with pytest.raises(ConfigurationError, match=rf"port {free} can't be for HTTP and gRPC both.*0 for a free one"):
        TritonServer(repository, http_port=free, grpc_port=free)


def test_ports_are_chosen_while_the_others_are_held(repository, monkeypatch):
    """What the system gives when it is asked twice: the same port, unless it is still held."""
    held: set[int] = set()

    class Socket(socket.socket):
        def bind(self, address):
            self.port = address[1] or next(each for each in range(20_000, 20_010) if each not in held)
            held.add(self.port)

        def getsockname(self):
            return "127.0.0.1", self.port

        def close(self):
            held.discard(getattr(self, "port", 0))
            super().close()

    monkeypatch.setattr(socket, "socket", Socket)
    with contextlib.closing(TritonServer(repository)) as server:
        assert {server.http_port, server.grpc_port} == {20_000, 20_001}
    for given in ({"http_port": 20_000}, {"grpc_port": 20_000}):
        with contextlib.closing(TritonServer(repository, **given)) as server:
            assert {server.http_port, server.grpc_port} == {20_000, 20_001}
            assert given.items() <= vars(server).items()
    assert not held


def test_it_listens_on_loopback_alone(server):
    """Addresses of the listening sockets of the server's own process."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{server.process.pid}/fd").iterdir()}
    listening = {
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes
    }
    addresses = {place.partition(":")[0] for place in listening}
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and as IPv6 writes it
    assert {int(place.partition(":")[2], 16) for place in listening} == {server.http_port, server.grpc_port}


def start(server: TritonServer) -> None:
    """Start a server that does not come up; nothing is left of it."""
    with server:
        raise AssertionError("it came up")


def test_a_server_that_does_not_start_says_why(repository, tmp_path):
    with pytest.raises(
        ServerUnavailableError, match=r"ended while it started: unrecognized option '--no-such-option'$"
    ):
        start(TritonServer(repository, options=["--no-such-option"]))
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    os.truncate(folder / "decoder" / "1" / "model.onnx", 1000)
    with pytest.raises(ServerUnavailableError, match=r"ended while it started: failed to load 'decoder' .*Protobuf"):
        start(TritonServer(folder, threads=1, verify=False))
    with socket.socket() as other:
        server = TritonServer(repository, threads=1)
        other.bind(("127.0.0.1", server.grpc_port))
        other.listen()
        with pytest.raises(ServerUnavailableError, match=rf"failed to start GRPC .*{server.grpc_port}.*in use"):
            start(server)


def test_no_repository_and_no_triton_are_told_apart(repository, tmp_path, monkeypatch, capsys):
    with pytest.raises(CorruptFileError, match="is no model repository"):
        TritonServer(tmp_path)
    monkeypatch.setattr(serve_command, "default_installation", lambda: Installation(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match=r"no tritonserver on the PATH.*make triton"):
        start(TritonServer(repository))
    assert run("serve", repository, "--http-port", 0, "--grpc-port", 0) == 2
    assert "make triton" in capsys.readouterr().err


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What a ``tritonserver`` on the PATH is told, as inside NVIDIA's container; it ends at once."""
    program = tmp_path / "tritonserver"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = --help ]; then echo "  --allow-client-shm <boolean>" >&2; exit; fi\n'
        f'echo "$@" > {tmp_path}/told\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def flags(server: TritonServer) -> list[str]:
        with pytest.raises(ServerUnavailableError, match="ended while it started"):
            start(server)
        return (tmp_path / "told").read_text().split()

    return flags


def test_a_tritonserver_on_the_path_goes_first(repository, told):
    """Its own backends, and shared memory asked for where it has to be; its help is on standard error, as Triton's."""
    flags = told(TritonServer(repository, threads=3))
    assert "--allow-client-shm=true" in flags
    assert "--backend-config=onnxruntime,intra_op_thread_count=3" in flags
    assert f"--model-repository={repository}" in flags
    assert not any(flag.startswith("--backend-directory") for flag in flags)


def test_a_native_server_is_always_told_its_threads(repository, tmp_path, told):
    """Left to itself every model has a thread for each CPU of the machine. What an export says goes before all CPUs."""
    setting = "--backend-config=onnxruntime,intra_op_thread_count="
    flags = told(TritonServer(repository))
    assert f"{setting}{available_cpus()}" in flags
    assert "--backend-config=onnxruntime,enable-global-threadpool=1" in flags
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    for config in folder.glob("*/config.pbtxt"):
        with config.open("a") as file:
            file.write('parameters {\n  key: "intra_op_thread_count"\n  value {\n    string_value: "1"\n  }\n}\n')
    assert not [flag for flag in told(TritonServer(folder, verify=False)) if "onnxruntime" in flag]  # a pool would win
    assert f"{setting}3" in told(TritonServer(folder, threads=3, verify=False))


def test_models_without_a_backend_here_are_left_out_and_named(repository, tmp_path, told, monkeypatch):
    """TorchScript twins, which NVIDIA's container serves and the stand-in does not."""
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    twin = folder / "decoder_torchscript"
    shutil.copytree(folder / "decoder", twin)
    text = (twin / "config.pbtxt").read_text()
    (twin / "config.pbtxt").write_text(
        text.replace('name: "decoder"', f'name: "{twin.name}"').replace('"onnxruntime"', '"pytorch"')
    )
    assert f"--model-repository={folder}" in told(TritonServer(folder, verify=False))
    monkeypatch.undo()  # the server on the PATH
    with TritonServer(folder, threads=1, verify=False) as server:
        assert server.not_served == [twin.name]
        with contextlib.closing(open_engine(server.grpc)) as engine:
            assert {model["name"] for model in engine.status()[0]["models"]} == {*engine.manifest.graphs, "reference"}


@pytest.mark.parametrize("wait", [0.0, 0.5, 2.0])
def test_a_command_that_is_ended_while_it_starts_leaves_nothing(repository, tmp_path, wait):
    """As Kubernetes and SLURM end it, whatever it is at."""
    memory = shared_memory()
    command = [Path(sys.executable).parent / "causcell", "serve", repository, "--http-port", "0", "--grpc-port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        while not any(tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(wait)
        started = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        assert (process.wait(30), process.stderr.read()) == (0, b"")
    check_gone(started)
    assert shared_memory() <= memory
    assert not any(tmp_path.iterdir())


# -- providers ---------------------------------------------------------------------------------------------------------


def test_a_provider_chooses_the_configurations(repository, told):
    assert "--model-config-name=gpu" in told(TritonServer(repository, provider="cuda"))
    for provider in (None, "cpu"):
        assert not any("--model-config-name" in flag for flag in told(TritonServer(repository, provider=provider)))


def test_a_provider_that_can_not_be(repository, tmp_path):
    """Unknown; without configurations, where Triton would take the CPU's and not say so; without a GPU."""
    with pytest.raises(ConfigurationError, match="provider 'tpu' is not known; known are 'cpu', 'cuda'"):
        TritonServer(repository, provider="tpu")
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    shutil.rmtree(folder / "scm" / "configs")
    with pytest.raises(RuntimeUnavailableError, match=r"needs configs/gpu\.pbtxt beside each graph, which 'scm' in"):
        TritonServer(folder, provider="cuda", verify=False)
    with pytest.raises(ServerUnavailableError, match=r"ended while it started: failed to load .*GPU"):
        start(TritonServer(repository, provider="cuda", threads=1))


# -- what the commands show of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_inspect_shows_a_servers_models_and_what_they_did(server, generator, protocol, capsys):
    location = getattr(server, protocol)
    assert run("inspect", location, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["digest"] == generator.manifest.digest
    (status,) = told["servers"]
    assert (status["address"], status["ready"], status["version"]) == (location, True, "2.51.0")
    models = {model["name"]: model for model in status["models"]}
    assert set(models) == {*generator.manifest.graphs, "reference"}
    assert models["decoder"] == {
        "name": "decoder",
        "version": "1",
        "state": "READY",
        "max_batch_size": 1024,
        "max_queue_delay_microseconds": models["decoder"]["max_queue_delay_microseconds"],
        "instances": 1,
    }
    assert told["statistics"][location]["reference"]["rows"] > 0
    assert run("inspect", location) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f"server {location}: ready, Triton 2.51.0")
    table = [re.split(r"  +", line.strip()) for line in lines[start + 1 : start + 2 + len(models)]]
    assert {row[0] for row in table[1:]} == set(models)
    assert all(len(row) == len(table[0]) for row in table)


def test_bench_of_a_server_tells_what_the_server_counted(server, tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert run("bench", server.grpc, "--out", out, "--batch", 2, "--seconds", 0.01) == 0
    results = json.loads(out.read_text())
    counted = results["server"][server.grpc]
    assert counted["decoder"]["requests"] >= 3
    assert counted["decoder"]["rows"] >= counted["decoder"]["requests"]
    assert counted["decoder"]["failed"] == 0
    assert counted["decoder"]["compute_ms"] > 0
    assert results["threads"] == "server"
    assert f"{server.grpc}, decoder: {counted['decoder']['requests']:,} requests in" in capsys.readouterr().out
