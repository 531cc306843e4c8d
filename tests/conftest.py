"""Models that tests share: trained once a session on small simulated cells, with a few epochs."""

from collections.abc import Iterator
from pathlib import Path

import anndata
import fuzzing
import pytest
from short_runs import small_config
from simulation import simulated_cells

from causcell.generator import Generator
from causcell_export import export
from causcell_training import Run, fit

# With --doctest-modules every file would be imported; these are programs of their own.
collect_ignore_glob = ["installed_client.py", "archive/make.py", "benchmarks/[!t]*.py"]


@pytest.fixture(scope="session")
def cells() -> anndata.AnnData:
    """Raw counts with labels of four concepts; treat as read-only (copy before changing)."""
    return simulated_cells()


@pytest.fixture(scope="session")
def run(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished training run on `cells`."""
    return fit(cells, tmp_path_factory.mktemp("trained") / "run", config=small_config())


@pytest.fixture(scope="session")
def repository(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported run; treat as read-only (copy the folder before changing)."""
    return export(run, tmp_path_factory.mktemp("exported") / "repository")


@pytest.fixture(scope="session")
def generator(repository: Path) -> Iterator[Generator]:
    """The embedded engine over `repository`, one thread."""
    with Generator.open(repository, threads=1, batch_size=64) as opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs of each reader were tried."""
    fuzzing.summarise(terminalreporter)
