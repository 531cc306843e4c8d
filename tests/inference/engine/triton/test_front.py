"""TLS and a token before the real server: Caddy, with the Caddyfile that stands beside the checked-in repository."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anndata
import numpy as np
import pytest
import trustme
from engine_contract import reference_inputs
from paths import MODEL_REPOSITORY

from causcell.cli.main import main
from causcell.engine.open import open_engine
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.errors import EngineError, ServerUnavailableError
from causcell.generator import Generator
from causcell.serve.server import TritonServer

pytestmark = pytest.mark.serving

CADDYFILE = MODEL_REPOSITORY / "Caddyfile"
TOKEN = "0123456789abcdef"


@dataclass(frozen=True)
class Front:
    """Where it listens, and the authority that signed its certificate."""

    port: int
    authority: Path

    @property
    def connection(self) -> Connection:
        return Connection(headers={"authorization": f"Bearer {TOKEN}"}, certificates=self.authority, patience=1)

    def location(self, scheme: str, host: str = "localhost") -> str:
        return f"{scheme}://{host}:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def front_of(server: TritonServer, folder: Path, **limits: str) -> Iterator[Front]:
    """A process of its own, ended at the end."""
    authority, port = trustme.CA(), free_port()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    environment = {
        "HOME": str(folder),
        "CAUSCELL_TOKEN": TOKEN,
        "CAUSCELL_CERTIFICATE": str(folder / "certificate.pem"),
        "CAUSCELL_KEY": str(folder / "key.pem"),
        "CAUSCELL_BIND": "127.0.0.1",
        "CAUSCELL_PORT": str(port),
        "CAUSCELL_GRPC": f"127.0.0.1:{server.grpc_port}",
        "CAUSCELL_HTTP": f"127.0.0.1:{server.http_port}",
        "CAUSCELL_HEADER_TIMEOUT": "1s",
        **limits,
    }
    caddy = shutil.which("caddy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [caddy, "run", "--config", CADDYFILE, "--adapter", "caddyfile"]
    with (folder / "caddy.log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        found = Front(port, folder / "authority.pem")
        try:
            end = time.monotonic() + 20
            while ask(found, "/v2/health/ready") != 200:
                assert process.poll() is None and time.monotonic() < end, (folder / "caddy.log").read_text()
                time.sleep(0.05)
            yield found
        finally:
            process.terminate()


def ask(front: Front, path: str, token: str | None = None, method: str = "GET") -> int:
    """Status of an answer; 0 if there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(front.location("https") + path, headers=headers, method=method)
    try:
        with urlopen(request, context=ssl.create_default_context(cafile=front.authority), timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def front(server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front_of(server, tmp_path_factory.mktemp("front")) as running:
        yield running


@pytest.fixture(params=["grpcs", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def test_cells_through_tls_are_the_embedded_engines(front, scheme, generator, cells):
    with Generator.open(front.location(scheme), connection=front.connection, batch_size=64) as served:
        found = served.counterfactual(cells, {"stim": "IFN"}, preset="mean")
    expected = generator.counterfactual(cells, {"stim": "IFN"}, preset="mean")
    np.testing.assert_allclose(found.X, expected.X, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer another"}, {"authorization": TOKEN}], ids=str)
def test_without_the_token_nothing_is_served(front, scheme, headers):
    with pytest.raises(EngineError, match=r"refused the request.*give an authorization header") as caught:
        open_engine(front.location(scheme), connection=replace(front.connection, headers=headers))
    assert type(caught.value) is EngineError  # neither tried again, nor taken for a broken repository


def test_a_certificate_of_an_unknown_authority_is_refused(front, scheme, tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with pytest.raises(EngineError, match=r"certificate that is not trusted.*name the authority") as caught:
        open_engine(front.location(scheme), connection=replace(front.connection, certificates=tmp_path / "other.pem"))
    assert type(caught.value) is EngineError


def test_a_certificate_of_another_name_is_refused(front, scheme):
    with pytest.raises(EngineError, match=r"certificate that is not trusted.*as its certificate does") as caught:
        open_engine(front.location(scheme, "127.0.0.1"), connection=front.connection)
    assert type(caught.value) is EngineError


def test_the_systems_authorities_are_trusted_if_none_are_given(front, scheme, monkeypatch):
    connection = replace(front.connection, certificates=None)
    with pytest.raises(EngineError, match="not trusted"):
        open_engine(front.location(scheme), connection=connection)
    monkeypatch.setenv("SSL_CERT_FILE", str(front.authority))
    open_engine(front.location(scheme), connection=connection).close()


def test_memory_is_not_shared_through_a_front(front, server, scheme):
    """Its Caddyfile passes on no request for it; the client goes on without."""
    watcher = TritonClient(*parse_location(server.grpc), Connection(shared_memory=False))
    with contextlib.closing(watcher):
        before = set(watcher.shared_regions())
        with contextlib.closing(open_engine(front.location(scheme), connection=front.connection)):
            assert set(watcher.shared_regions()) <= before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/decoder/unload"),
        ("GET", "/v2/logging"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/metrics"),
    ],
)
def test_what_no_client_needs_is_not_passed_on(front, method, path):
    assert ask(front, path, method=method) == 401
    assert ask(front, path, TOKEN, method) == 403


def test_probes_need_no_token(front):
    assert ask(front, "/v2/health/live") == ask(front, "/v2/health/ready") == 200
    assert ask(front, "/v2/models/decoder/config") == 401
    assert ask(front, "/v2/models/decoder/config", TOKEN) == 200


def test_a_front_without_its_server_is_unavailable(own_server, tmp_path, scheme, generator):
    with front_of(own_server, tmp_path) as front:
        engine = open_engine(front.location(scheme), connection=front.connection)
        own_server.kill()
        with contextlib.closing(engine), pytest.raises(ServerUnavailableError, match="is not available"):
            engine.run("scm", reference_inputs(generator.engine))


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused(server, tmp_path, scheme):
    """Before the server has it all; and the client says what can be done."""
    inputs = {"expression": np.ones((900, 50), np.float32)}
    with (
        front_of(server, tmp_path, CAUSCELL_LARGEST_BODY="100KiB") as front,
        contextlib.closing(open_engine(front.location(scheme), connection=front.connection)) as engine,
    ):
        assert engine.run("encoder_scm", {"expression": inputs["expression"][:100]})
        with pytest.raises(EngineError):
            engine.run("encoder_scm", inputs)
        assert engine.run("encoder_scm", {"expression": inputs["expression"][:100]})


def test_the_limit_of_a_body_is_what_servers_take():
    assert "max_size {$CAUSCELL_LARGEST_BODY:64MiB}" in CADDYFILE.read_text()


def test_headers_that_do_not_come_end_the_connection(front):
    """A byte at a time, as who wants to hold all connections would send them."""
    context = ssl.create_default_context(cafile=front.authority)
    with (
        socket.create_connection(("127.0.0.1", front.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n")
        start = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 8:
                secure.sendall(b"X")
                time.sleep(0.2)
                secure.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    if not secure.recv(1000):
                        break
                secure.settimeout(10)
        assert time.monotonic() - start < 6


@pytest.fixture
def connection_file(front: Front, tmp_path: Path) -> Path:
    """What `Front.connection` says, as TOML."""
    file = tmp_path / "connection.toml"
    file.write_text(f'certificates = "{front.authority}"\npatience = 1\n[headers]\nauthorization = "Bearer {TOKEN}"\n')
    return file


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_a_connection_file_on_the_command_line(front, scheme, connection_file, capsys):
    assert run("inspect", front.location(scheme), "--connection", connection_file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["servers"][0]["ready"]
    assert run("inspect", front.location(scheme)) == 2
    assert "not trusted" in capsys.readouterr().err


def test_a_trial_of_a_served_model_is_the_embedded_one(front, connection_file, repository, cells, tmp_path):
    cells[:100].write_h5ad(tmp_path / "cells.h5ad")
    words = ["trial", tmp_path / "cells.h5ad", "--concept", "stim", "--draws", 2, "--no-progress"]
    served = ["--models", front.location("grpcs"), "--connection", connection_file]
    assert run(*words, *served, "--out", tmp_path / "served.h5ad") == 0
    assert run(*words, "--models", repository, "--out", tmp_path / "embedded.h5ad") == 0
    found, expected = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("served", "embedded"))
    np.testing.assert_allclose(found.layers["effect"], expected.layers["effect"], atol=1e-4)


@pytest.mark.slow
def test_an_evaluation_of_a_served_model_is_the_embedded_one(front, connection_file, repository, cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ["evaluate", tmp_path / "cells.h5ad", "--no-progress"]
    served = ["--models", front.location("grpcs"), "--connection", connection_file]
    assert run(*words, *served, "--out", tmp_path / "served") == 0
    assert run(*words, "--models", repository, "--out", tmp_path / "embedded") == 0
    found, expected = (
        {table["name"]: table["rows"] for table in json.loads((tmp_path / name / "report.json").read_text())["tables"]}
        for name in ("served", "embedded")
    )
    assert found.keys() == expected.keys()
    estimate = "Mean estimate of the judged cells"
    for row, measures in expected[estimate].items():
        for measure, value in measures.items():
            assert found[estimate][row][measure]["mean"] == pytest.approx(value["mean"], abs=1e-3)
