"""A real Triton server on loopback, over the repository that other tests share; `make triton` lays one down."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from causcell.serve.server import TritonServer

pytest.register_assert_rewrite("engine_contract")

servers: set[str] = set()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a server, wherever they are."""
    for item in items:
        if {"server", "own_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.serving)


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """One that runs for all tests, which leave it as it is."""
    with TritonServer(repository, threads=1) as running:
        with urlopen(f"{running.http}/v2") as answer:
            servers.add(f"{running.process.args[0]}, version {json.load(answer)['version']}")
        yield running


@pytest.fixture
def own_server(repository: Path) -> Iterator[TritonServer]:
    """One to do harm to."""
    with TritonServer(repository, threads=1) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which server it was."""
    for server in servers:
        terminalreporter.write_line(f"tests marked `serving` ran against a real Triton: {server}")
