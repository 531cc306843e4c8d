"""Prediction, written out: which random numbers a cell takes, and the loop that the exported sampler fuses."""

import numpy as np
import pytest

from causcell.diffusion.sampling import sample
from causcell.diffusion.solvers import SolverSettings, ddpm
from causcell.errors import EngineError
from causcell.generator import Generator
from causcell.randomness import CellNoise, Purpose, cell_keys, normals


class Echo:
    """An engine whose denoiser answers x_t itself, so that results are made of the noise alone."""

    def __init__(self, engine):
        self.manifest, self.reference, self.description = engine.manifest, engine.reference, "echo"
        self._engine = engine
        self.concurrency, self.threads = 1, 1

    def run(self, graph, inputs, outputs=None):
        return {"x0": inputs["x_t"]} if graph == "denoiser" else self._engine.run(graph, inputs, outputs)

    def close(self):
        """Nothing is held."""


def test_noise_is_keyed_by_cell_purpose_draw_and_step(generator, few, quiet):
    """Written out for three steps of ancestral sampling; 1e-5 for float32 sums of a few numbers of order 1."""
    echo = Generator(Echo(generator.engine), batch_size=64)
    result = echo.counterfactual(few, {"stim": "IFN"}, solver="ddpm", steps=3, draws=2, seed=9)
    keys, table = cell_keys(9, few.obs_names), ddpm(generator.manifest.schedule, 3).table
    for draw in (0, 1):
        x = normals(keys, 50, Purpose.INITIAL_NOISE, draw=draw)
        for step in (0, 1):
            a, b, _, s = table[step, 1:]
            x = (a + b) * x + s * normals(keys, 50, Purpose.STEP_NOISE, draw=draw, step=step)
        expected = generator.preprocessing.expression(x)
        np.testing.assert_allclose(result[result.obs["draw"] == draw].X, expected, atol=1e-5)


@pytest.mark.parametrize("options", [("ddim", 1), ("ddim", 12), ("dpmpp", 7), ("dpmpp", 20), ("mean", 1)], ids=str)
def test_the_fused_loop_is_the_clients(generator, few, options):
    """1e-4, of which one value in a thousand may be more: each step magnifies differences between zero and slab."""
    settings = SolverSettings(*options)
    solver, keys, genes = settings.build(generator.manifest.schedule), cell_keys(5, few.obs_names), 50
    z = generator.embed(few).obsm["X_causcell"].reshape(len(few), -1, generator.manifest.dimensions.embedding)

    def denoise(x, t):
        timestep = np.full((len(x), 1), t, dtype=np.int64)
        return generator.engine.run("denoiser", {"x_t": x, "timestep": timestep, "endogenous": z})["x0"]

    x0 = sample(
        denoise,
        solver,
        (len(few), genes),
        initial_noise=lambda: normals(keys, genes, Purpose.INITIAL_NOISE),
        step_noise=lambda step: pytest.fail("a deterministic solver takes no fresh noise"),
    )
    expected = generator.preprocessing.expression(x0)
    fused = generator.model.decode(z, CellNoise(keys, genes), solver)
    assert (np.abs(fused - expected) / (1 + expected) > 1e-4).mean() <= 1e-3


@pytest.mark.parametrize(("x0", "dtype"), [(7e4, "float16"), (np.inf, "float32"), (np.nan, "float32")])
def test_a_loop_that_leaves_the_range_of_its_type_is_an_error(generator, few, quiet, x0, dtype):
    """Solvers are sums: finite answers of an engine may leave what a float holds, in the loop or at its end."""

    class Far(Echo):
        def run(self, graph, inputs, outputs=None):
            answer = super().run(graph, inputs, outputs)
            return {"x0": np.full_like(answer["x0"], x0)} if graph == "denoiser" else answer

    model = Generator(Far(generator.engine), batch_size=64).model
    embedding = np.zeros((2, model.schema.size, model.manifest.dimensions.embedding), dtype=np.float32)
    noise = CellNoise(cell_keys(0, ["a", "b"]), 50, 0)
    with pytest.raises(EngineError, match=rf"in row 0 of the batch, which is no {dtype} value to keep"):
        model.decode(embedding, noise, SolverSettings("ddpm", steps=3).build(model.manifest.schedule), dtype)
