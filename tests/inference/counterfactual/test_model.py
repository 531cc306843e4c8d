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
        self.concurrency, self.threads, self.at_hand = 1, 1, True

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


@pytest.mark.parametrize("options", [("ddim", 1), ("ddim", 12), ("dpmpp", 7), ("dpmpp", 20)], ids=str)
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


def embeddings(generator, cells):
    """Endogenous embeddings of cells, [n x M x k], and their keys."""
    z = generator.embed(cells).obsm["X_causcell"].reshape(len(cells), -1, generator.manifest.dimensions.embedding)
    return z, cell_keys(5, cells.obs_names)


def test_draws_and_means_are_the_graphs_own(generator, few):
    """In this process a draw's tail runs outside the graph: the same values as the graph's, and none on the threshold.

    The mean at pure noise is the sampler's at the last time but for what abar, 4e-5 there, tells: at most 1 %.
    """
    z, keys = embeddings(generator, few)
    model, noise = generator.model, CellNoise(keys, 50)
    draw, mean = (SolverSettings(name).build(model.manifest.schedule) for name in ("draw", "mean"))
    assert model.draws_sparse(draw)
    assert not model.draws_sparse(mean)
    drawn = model.decode(z, noise, draw)
    inputs = {"endogenous": z, "uniforms": noise.posterior(int(draw.table[0, 0]))}
    decoded = generator.engine.run("decoder", inputs)["expression"]
    np.testing.assert_allclose(drawn, decoded, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.draw(z, noise, draw).toarray(), drawn)
    table = np.tile(mean.table.astype(np.float32), (len(z), 1, 1))
    inputs = {"endogenous": z, "noise": np.zeros_like(drawn), "solver": table}
    sampled = generator.engine.run("sampler", inputs)["expression"]
    np.testing.assert_allclose(model.decode(z, noise, mean), sampled, rtol=1e-2, atol=1e-2)


def test_models_without_the_graph_slab_draw_by_the_decoder(generator, few):
    """As those that earlier versions exported: their answers are the graphs' own."""

    class Older(Echo):
        def __init__(self, engine):
            super().__init__(engine)
            graphs = {name: info for name, info in engine.manifest.graphs.items() if name != "slab"}
            self.manifest = engine.manifest.model_copy(update={"graphs": graphs})

    z, keys = embeddings(generator, few)
    older, noise = Generator(Older(generator.engine), batch_size=64).model, CellNoise(keys, 50)
    for name in ("draw", "mean"):
        solver = SolverSettings(name).build(older.manifest.schedule)
        assert not older.draws_sparse(solver)
        close = {"rtol": 1e-2, "atol": 1e-2}
        np.testing.assert_allclose(older.decode(z, noise, solver), generator.model.decode(z, noise, solver), **close)


def test_a_slab_that_is_no_number_is_an_error(generator, few):
    class Spoilt(Echo):
        def run(self, graph, inputs, outputs=None):
            answer = super().run(graph, inputs, outputs)
            if graph == "slab" and "slab_mean" in answer:
                answer["slab_probability"][3] = 1
                answer["slab_mean"][3, 7] = np.nan
            return answer

    z, keys = embeddings(generator, few)
    model = Generator(Spoilt(generator.engine), batch_size=64).model
    draw = SolverSettings("draw").build(model.manifest.schedule)
    with pytest.raises(EngineError, match=r"expression of nan \(log scale\) in row 3 of the batch"):
        model.decode(z, CellNoise(keys, 50), draw)
