"""A real Triton server on loopback (`make triton` lays one down), and the few cells that tests of results share."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import anndata
import pytest

from causcell.errors import CausCellWarning
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


@pytest.fixture(scope="session")
def few(cells: anndata.AnnData) -> anndata.AnnData:
    """Cells of a batch and a half; treat as read-only."""
    return cells[:96].copy()


@pytest.fixture
def quiet() -> Iterator[None]:
    """For tests that do not look at warnings of unseen combinations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which server it was."""
    for server in servers:
        terminalreporter.write_line(f"tests marked `serving` ran against a real Triton: {server}")
