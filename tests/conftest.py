"""Models that tests share: trained once a session on small simulated cells, with a few epochs."""

from collections.abc import Iterator
from pathlib import Path

import anndata
import pytest
from simulation import CONCEPTS, EDGES, simulated_cells

from causcell.generator import Generator
from causcell_export import export
from causcell_training import Run, TrainConfig, fit
from causcell_training.config import load_config

# With --doctest-modules every file would be imported; these are programs of their own.
collect_ignore_glob = ["installed_client.py", "archive/make.py", "benchmarks/[!t]*.py"]


def small_config(**overrides: object) -> TrainConfig:
    """Settings of a model that trains in seconds; dotted names are given with ``__`` for the dot."""
    small = {
        "concept": CONCEPTS,
        "edge": EDGES,
        "genes": 50,
        "model.embedding": 8,
        "model.encoder_width": 32,
        "model.width": 32,
        "model.blocks": 1,
        "optimisation.epochs": 10,
        "optimisation.batch_size": 64,
        "optimisation.validate_every": 2,
    }
    return load_config(overrides=small | {name.replace("__", "."): value for name, value in overrides.items()})


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
