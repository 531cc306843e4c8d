"""A real Triton server on loopback, over the repository that other tests share; `make triton` lays one down."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import anndata
import pytest

from causcell.errors import CausCellWarning
from causcell.serve.server import TritonServer

tested: set[str] = set()


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """One that runs for all tests, which leave it as it is."""
    with TritonServer(repository, threads=1) as running:
        with urlopen(f"{running.http}/v2") as answer:
            tested.add(f"{running.process.args[0]}, version {json.load(answer)['version']}")
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which server it was."""
    for each in tested:
        terminalreporter.write_line(f"tests/serving ran against the real Triton: {each}")


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
