"""Rates of the embedded engine on the checked-in model: one batch of cells by solver, one compute thread.

make benchmark
"""

from pathlib import Path

import numpy as np
import pytest

from causcell.bench.workload import Workload
from causcell.cells.collection import open_cells
from causcell.counterfactual.request import make_request
from causcell.diffusion.solvers import SolverSettings
from causcell.generator import Generator
from causcell.randomness import Purpose, cell_keys, normals, uniforms
from causcell_export.demo import demo_cells

MODELS = Path(__file__).parents[2] / "model_repository"
BATCH = 256


@pytest.fixture(scope="module")
def generator():
    with Generator.open(MODELS, threads=1, batch_size=BATCH) as opened:
        yield opened


@pytest.mark.parametrize(
    "settings",
    [
        SolverSettings("draw"),
        SolverSettings("mean"),
        SolverSettings("draw", 10),
        SolverSettings("ddim", 20),
        SolverSettings("dpmpp", 20),
        SolverSettings("ddpm", 20),
    ],
    ids=lambda settings: f"{settings.solver}-{settings.steps}",
)
def test_counterfactual_batch(benchmark, generator, settings):
    """Read, encode, intervene and sample 256 cells; ``cells_per_second`` is in the extra info."""
    cells = demo_cells()[:BATCH].copy()
    request = make_request(generator.manifest, {"phase": "S"}, settings=settings)
    bound = generator.bind(open_cells(cells))
    benchmark(lambda: list(generator.generate(bound, request)))
    benchmark.extra_info["cells_per_second"] = BATCH / benchmark.stats.stats.median


def test_engine_only(benchmark, generator):
    """The draw preset from exogenous embeddings in memory: what ``causcell bench`` calls the rate."""
    workload = Workload(generator)
    cells, solver = workload.take_cells(BATCH), workload.build_solver("draw")
    benchmark(lambda: workload.generate(cells, solver))
    benchmark.extra_info["cells_per_second"] = BATCH / benchmark.stats.stats.median


@pytest.mark.parametrize("kind", [uniforms, normals], ids=lambda kind: kind.__name__)
def test_keyed_numbers(benchmark, kind):
    """2,000 keyed numbers a cell for 256 cells; ``microseconds_per_cell`` is in the extra info."""
    keys = cell_keys(0, np.array([f"cell_{i}" for i in range(BATCH)], dtype=object))
    benchmark(lambda: kind(keys, 2000, Purpose.STEP_NOISE))
    benchmark.extra_info["microseconds_per_cell"] = benchmark.stats.stats.median / BATCH * 1e6
