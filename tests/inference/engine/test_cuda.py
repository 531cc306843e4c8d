"""The engine in this process on a GPU: the contract of engines, values beside the CPU's, and workers."""

import contextlib
import ctypes
import subprocess
import sys

import anndata
import numpy as np
import onnxruntime
import pytest
from engine_contract import EngineContract, zero_inputs

from causcell import Generator, InProcess, Processes
from causcell.engine.open import open_engine
from causcell.errors import EngineError
from causcell_export.graphs import example_inputs, graphs


def has_gpu() -> bool:
    """There is a driver, and ONNX Runtime is the package for GPUs."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason="no GPU, or no onnxruntime-gpu")]


@pytest.fixture(scope="module")
def engine(repository):
    opened = open_engine(repository, threads=1, provider="cuda")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def on_gpu(repository):
    with Generator.open(repository, threads=1, batch_size=64, provider="cuda") as opened:
        yield opened


class TestOnnxEngineOnCuda(EngineContract):
    """The contract, beside the engine on the CPU."""

    @pytest.fixture
    def embedded(self, generator):
        return generator.engine

    def test_a_graph_that_fails(self, engine):
        """CUDA reads beside a table without an error (seen on an H100), and whatever it finds is finite, or refused."""
        inputs = zero_inputs(engine, "denoiser") | {"timestep": np.full((3, 1), 100_000, dtype=np.int64)}
        with contextlib.suppress(EngineError):
            engine.run("denoiser", inputs)
        assert engine.run("denoiser", zero_inputs(engine, "denoiser"))


@pytest.mark.parametrize("graph", ["encoder_scm", "scm", "abduction", "denoiser", "sampler", "decoder"])
def test_values_are_the_cpus_within_the_tolerance_of_an_export(engine, generator, run, graph):
    """TF32 would be outside: it keeps 10 bits of the factors of a product."""
    inputs = example_inputs(run.model, run.held_out().X.toarray(), batch=256)[graph]
    tolerance = graphs(run.model)[graph].tolerance
    found, expected = engine.run(graph, inputs), generator.engine.run(graph, inputs)
    for name, array in expected.items():
        limit = max(tolerance.limit, 2.0**-10 if array.dtype == np.float16 else 0)
        here, there = (each.astype(np.float32) for each in (found[name], array))
        beyond = np.abs(here - there) > limit * (1 + np.abs(there))
        assert beyond.sum() <= np.ceil(tolerance.beyond * array.size), name


def test_counterfactual_cells_are_the_cpus(on_gpu, generator, cells):
    """The same keyed numbers: draws flip where a number lies within rounding of its threshold, and nowhere else."""
    found, expected = (each.counterfactual(cells, do={"stim": "IFN"}, seed=3) for each in (on_gpu, generator))
    difference = np.abs(np.asarray(found.X - expected.X))
    assert (difference > 1e-3 * (1 + np.abs(np.asarray(expected.X)))).mean() <= 1e-4


def test_batches_of_other_sizes_are_the_same_cells(on_gpu, repository, cells):
    with Generator.open(repository, batch_size=17, provider="cuda") as other:
        one, two = (each.counterfactual(cells, do={"stim": "IFN"}, seed=3) for each in (on_gpu, other))
    assert (np.abs(np.asarray(one.X - two.X)) > 1e-3).mean() <= 1e-4


def test_workers_have_a_gpu_of_their_own(on_gpu, cells, tmp_path):
    """The session of the process that starts them is open."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    made = {}
    for name, executor in (("here", InProcess()), ("workers", Processes(2))):
        on_gpu.write_atlas(tmp_path / "cells.h5ad", tmp_path / f"{name}.zarr", do={"stim": "IFN"}, executor=executor)
        made[name] = anndata.read_zarr(tmp_path / f"{name}.zarr").X.toarray()
    np.testing.assert_array_equal(made["workers"], made["here"])


def test_the_client_finds_the_libraries_that_pip_installed(repository):
    """In a process that has not imported torch, which would have loaded them."""
    code = (
        "import sys; from causcell.engine.open import open_engine; import numpy as np\n"
        f"engine = open_engine({str(repository)!r}, provider='cuda')\n"
        "shape = engine.manifest.graphs['encoder_scm'].inputs['expression'].shape\n"
        "engine.run('encoder_scm', {'expression': np.zeros((2, *shape), dtype=np.float32)})\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_its_status_names_the_provider(engine):
    (endpoint,) = engine.status()
    assert endpoint["provider"] == "cuda"
    assert "CUDAExecutionProvider" in engine.description
    engine.run("scm", zero_inputs(engine, "scm"))
