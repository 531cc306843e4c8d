"""Heads other than the default one, from training to cells."""

import numpy as np
import pytest
from exported import export_unmeasured
from head_from_outside import LaplaceHead
from short_runs import small_config

from causcell.diffusion.sampling import draw_spike_slab
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConfigurationError
from causcell.generator import Generator
from causcell.randomness import CellNoise, Purpose, cell_keys, uniforms
from causcell_export import export
from causcell_training import fit
from causcell_training.heads import head_class, register_head

pytestmark = pytest.mark.slow  # models are trained and exported


@pytest.mark.parametrize("head", ["plain", "skip"])
def test_a_head_without_a_posterior_exports_and_generates_but_does_not_draw(cells, tmp_path, monkeypatch, head):
    cls = head_class(head)
    few_steps = {**cls.presets, "accurate": SolverSettings("ddpm", steps=20)}  # 250 take long to measure
    monkeypatch.setattr(cls, "presets", few_steps)
    run = fit(cells, tmp_path / "run", config=small_config(model__head=head, optimisation__epochs=1))
    with Generator.open(export(run, tmp_path / "models"), threads=1, batch_size=64) as generator:
        assert generator.manifest.head == head
        assert generator.manifest.default_preset == "mean"
        assert set(generator.manifest.graphs) == {"encoder_scm", "abduction", "scm", "denoiser", "sampler"}
        for options in ({}, {"solver": "ddpm", "steps": 5}):
            assert np.isfinite(generator.counterfactual(cells, {"stim": "IFN"}, **options).X).all()
        with pytest.raises(ConfigurationError, match=f"posterior that the head of this model, '{head}', does not give"):
            generator.counterfactual(cells, {"stim": "IFN"}, solver="draw")


def test_a_head_from_outside_trains_exports_and_draws(cells, tmp_path):
    """Registered, it is a setting like any: its presets, its draw and its name reach the manifest and the client."""
    register_head("laplace", LaplaceHead, replace=True)
    run = fit(cells, tmp_path / "run", config=small_config(model__head="laplace", optimisation__epochs=8))
    real = run.held_out()
    with Generator.open(export_unmeasured(run, tmp_path / "models"), threads=1, batch_size=64) as generator:
        manifest = generator.manifest
        assert manifest.head == "laplace"
        assert {name: preset.solver for name, preset in manifest.presets.items()} == LaplaceHead.presets
        assert list(manifest.graphs["denoiser"].outputs) == ["x0"]
        assert "decoder" in manifest.graphs
        drawn = generator.reconstruct(real, preset="draw", expression="log1p").X
        zeros = (real.X.toarray() == 0).mean()
        assert (drawn == 0).mean() == pytest.approx(zeros, abs=0.2)  # a few epochs, a few cells
        for options in ({}, {"preset": "balanced"}, {"preset": "mean"}, {"solver": "ddim", "steps": 5}):
            assert np.isfinite(generator.counterfactual(cells, {"stim": "IFN"}, **options).X).all()


def test_draws_of_the_default_head_have_the_zeros_and_the_spread_of_cells(generator, run):
    """On the cells to report on, after ten epochs: the mean estimate has neither; loose bounds, as cells are few."""
    cells = run.held_out()
    real = cells.X.toarray()
    draws = generator.reconstruct(cells, preset="draw", expression="log1p").X
    mean = generator.reconstruct(cells, preset="mean", expression="log1p").X
    zeros = (real == 0).mean()
    assert (draws == 0).mean() == pytest.approx(zeros, abs=0.2)
    assert (mean == 0).mean() < 0.5 * zeros
    assert 0.7 < draws.var(axis=0).sum() / real.var(axis=0).sum() < 1.4
    assert mean.var(axis=0).sum() < 0.7 * real.var(axis=0).sum()


def test_one_draw_by_the_decoder_is_one_draw_by_the_loop(generator, cells):
    """The loop's first step sees x_T = 0 where the decoder sees nothing: abar is 4e-5 there, so 1 % at most differ."""
    engine, last = generator.engine, generator.manifest.schedule.timesteps - 1
    names = [str(name) for name in cells.obs_names[:64]]
    z = generator.embed(cells[:64]).obsm["X_causcell"].reshape(64, -1, generator.manifest.dimensions.embedding)
    u = uniforms(cell_keys(0, names), len(generator.preprocessing.genes), Purpose.POSTERIOR, step=last)
    decoded = engine.run("decoder", {"endogenous": z, "uniforms": u})["expression"]
    timestep = np.full((64, 1), last, dtype=np.int64)
    slab = engine.run("denoiser", {"x_t": np.zeros_like(u), "timestep": timestep, "endogenous": z})
    looped = generator.preprocessing.expression(
        draw_spike_slab(
            slab["slab_probability"], slab["slab_mean"], slab["slab_deviation"], generator.preprocessing.zero, u
        )
    )
    assert (np.abs(decoded - looped) > 0.02).mean() < 0.01
    settings = generator.solver_settings(preset="draw").build(generator.manifest.schedule)
    noise = CellNoise(cell_keys(0, names), len(generator.preprocessing.genes))
    np.testing.assert_allclose(generator.model.decode(z, noise, settings), decoded, rtol=1e-4, atol=1e-4)
