"""A real Triton server on loopback, over the repository that other tests share; `make triton` lays one down."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from causcell.triton.server import TritonServer


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """One that runs for all tests, which leave it as it is."""
    with TritonServer(repository, threads=1) as running:
        yield running


@pytest.fixture
def own_server(repository: Path) -> Iterator[TritonServer]:
    """One to do harm to."""
    with TritonServer(repository, threads=1) as running:
        yield running
