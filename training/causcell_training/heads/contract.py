"""Contract test of heads, for their authors: what training, export and the client count on."""

from __future__ import annotations

import copy
import io

import torch
from torch import Tensor, nn

from causcell.diffusion.sampling import POSTERIOR_OUTPUTS
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.slab import SlabScale
from causcell.diffusion.solvers import SolverSettings
from causcell_training.heads.base import Head
from causcell_training.heads.registry import LOSSES, head_class

WIDTH, CELLS, GENES = 8, 6, 5
QUANTILES = 4096
ZERO = -8.0
"""Standardised zero expression of the genes: so far from their mean that clipping at zero changes no draw."""


def check_head(head: str | type[Head]) -> None:
    """Check that a head keeps the contract of `causcell_training.heads.Head`.

    On random hidden states, at times from nearly clean to pure noise, it is checked that

    - `x0`, `losses` and `denoise` have the declared names, shapes and types, are finite, and agree with each other;
    - a cell's answer does not depend on its batch;
    - the losses reach the hidden state and every parameter, and steps of gradient descent lower their sum;
    - weights saved are weights loaded;
    - at half precision of its matrix products it answers within 2 % in single precision;
    - `torch.export` can trace it for a batch of any size, as the exporter does;
    - `draw`, if it draws: expression that is finite, not negative, changed by its uniform numbers, and whose mean over
      them is that of `x0` at pure noise (within 3 %);
    - `prior`, if it is a Gaussian slab: a client's draw from it, for the same uniform numbers, is that of `draw`;
    - its presets can be built, name only what it can do, and include ``mean``.

    Parameters
    ----------
    head
        A subclass of `Head`, or the name of a registered one.

    Raises
    ------
    AssertionError
        The contract is broken; the message says how.
    ConfigurationError
        The name is not known.

    Examples
    --------
    >>> check_head("plain")
    """
    cls = head_class(head) if isinstance(head, str) else head
    assert isinstance(cls, type) and issubclass(cls, Head), f"{cls!r} is not a subclass of Head"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = cls(WIDTH, torch.full((GENES,), ZERO)).eval()
        for parameter in built.parameters():
            nn.init.normal_(parameter, std=0.3)
        _check_declarations(cls)
        _check_answers(built)
        _check_training(copy.deepcopy(built))
        _check_state(cls, built)
        _check_half_precision(built)
        _check_export(built)
        if cls.draws:
            _check_draws(built)
        if cls.gaussian_slab:
            _check_slab(built)


def _cells(count: int = CELLS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, noised cells, abar from nearly clean to pure noise, clean cells of which some are zero."""
    alpha_bar = torch.tensor(NoiseSchedule().alpha_bar, dtype=torch.float32)
    alpha_bar = alpha_bar[torch.linspace(0, len(alpha_bar) - 1, count).long(), None]
    x = torch.where(torch.rand(count, GENES) < 0.5, torch.randn(count, GENES), torch.tensor(ZERO))
    return torch.randn(count, WIDTH), alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * torch.randn_like(x), alpha_bar, x


def _check_declarations(cls: type[Head]) -> None:
    assert cls.loss_names, "loss_names is empty: nothing would be trained"
    unknown = set(cls.loss_names) - set(LOSSES)
    assert not unknown, f"loss_names has {unknown}; the objective has weights for {LOSSES} alone"
    assert cls.denoiser_outputs[:1] == ("x0",), f"denoiser_outputs is {cls.denoiser_outputs}; its first is 'x0'"
    assert "mean" in cls.presets, f"presets has {tuple(cls.presets)}; evaluation and effects ask for 'mean'"
    for name, settings in cls.presets.items():
        assert isinstance(settings, SolverSettings), f"preset {name!r} is {settings!r}; give SolverSettings"
        solver = settings.build(NoiseSchedule())
        assert cls.draws or not solver.draw, f"preset {name!r} draws, and the head does not"
        many = solver.draw and solver.steps > 1
        missing = set(POSTERIOR_OUTPUTS) - set(cls.denoiser_outputs)
        assert not (many and missing), f"preset {name!r} draws in many steps, and denoiser_outputs lacks {missing}"
    settings = cls.presets["mean"]
    assert settings.estimate == "mean", f"preset 'mean' is {settings}, a sample"


@torch.no_grad()
def _check_answers(head: Head) -> None:
    hidden, x_t, alpha_bar, x = _cells()
    x0 = head.x0(hidden, x_t, alpha_bar)
    losses = head.losses(hidden, x_t, alpha_bar, x)
    outputs = head.denoise(hidden, x_t, alpha_bar)
    assert tuple(losses) == head.loss_names, f"losses are {tuple(losses)}, loss_names says {head.loss_names}"
    names = head.denoiser_outputs
    assert len(outputs) == len(names), f"denoise returns {len(outputs)} tensors, denoiser_outputs says {names}"
    for name, values in {"x0": x0, **losses, **dict(zip(names, outputs, strict=True))}.items():
        assert values.shape == x_t.shape, f"{name} has shape {tuple(values.shape)}; it has to be cells x genes"
        assert values.dtype == torch.float32, f"{name} is {values.dtype}; it has to be float32"
        assert torch.isfinite(values).all(), f"{name} is not finite: {values}"
    assert torch.equal(outputs[0], x0), "denoise's x0 differs from that of x0()"
    alone = torch.cat([head.x0(hidden[i, None], x_t[i, None], alpha_bar[i, None]) for i in range(CELLS)])
    assert torch.allclose(alone, x0, rtol=1e-4, atol=1e-4), "x0 of a cell depends on the others of its batch"


def _check_training(head: Head) -> None:
    hidden, x_t, alpha_bar, x = _cells(64)
    hidden.requires_grad_()
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    totals = []
    for step in range(30):
        total = torch.stack([loss.mean() for loss in head.losses(hidden, x_t, alpha_bar, x).values()]).sum()
        optimiser.zero_grad()
        total.backward()
        if step == 0:
            assert hidden.grad is not None and hidden.grad.any(), "the losses do not reach the hidden state"
            for name, parameter in head.named_parameters():
                grad = parameter.grad
                assert grad is not None and grad.any(), f"the losses do not reach the parameter {name!r}"
                assert torch.isfinite(grad).all(), f"the gradient of {name!r} is not finite"
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0], (
        f"30 steps of gradient descent took the losses from {totals[0]:.3g} to {totals[-1]:.3g}"
    )


@torch.no_grad()
def _check_state(cls: type[Head], head: Head) -> None:
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    loaded = cls(WIDTH, torch.full((GENES,), ZERO)).eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    cells = _cells()[:3]
    assert torch.equal(loaded.x0(*cells), head.x0(*cells)), "a head with the weights of another answers something else"


@torch.no_grad()
def _check_half_precision(head: Head) -> None:
    lowered = copy.deepcopy(head)
    for child in lowered.children():
        child.to(torch.float16)
    hidden, x_t, alpha_bar, _ = _cells()
    found, expected = lowered.x0(hidden.half(), x_t, alpha_bar), head.x0(hidden, x_t, alpha_bar)
    assert found.dtype == torch.float32, f"with its products at half precision x0 is {found.dtype}; cast it to x_t's"
    difference = float(((found - expected).abs() / (1 + expected.abs())).max())
    assert difference < 0.02, f"with its products at half precision x0 differs by {difference:.2g} of 1 + |x0|"


class _Traced(nn.Module):
    """A head's answer and its draw, as the exporter traces them."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, uniforms: Tensor) -> tuple[Tensor, ...]:
        outputs = self.head.denoise(hidden, x_t, alpha_bar)
        return (*outputs, _draw(self.head, hidden, uniforms)) if self.head.draws else outputs


def _draw(head: Head, hidden: Tensor, uniforms: Tensor) -> Tensor:
    """Draw expression with deviation 1 and the mean at which zero expression is standardised to `ZERO`."""
    mean, deviation = torch.full((GENES,), -ZERO), torch.ones(GENES)
    return head.draw(hidden, uniforms, mean, deviation, **head.draw_constants(deviation))


@torch.no_grad()
def _check_export(head: Head) -> None:
    hidden, x_t, alpha_bar, _ = _cells()
    inputs = (hidden, x_t, alpha_bar, torch.rand_like(x_t).clamp(min=1e-6))
    batch = {0: torch.export.Dim("batch")}
    try:
        program = torch.export.export(_Traced(head), inputs, dynamic_shapes=(batch,) * len(inputs))
    except Exception as error:  # whatever it is that a tracer meets
        raise AssertionError(f"torch.export can't trace the head for a batch of any size: {error}") from error
    for rows in (CELLS, 3):
        given = tuple(each[:rows] for each in inputs)
        for found, expected in zip(program.module()(*given), _Traced(head)(*given), strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4), f"the trace answers {rows} cells otherwise"


@torch.no_grad()
def _check_draws(head: Head) -> None:
    hidden = torch.randn(1, WIDTH).expand(QUANTILES, -1)
    uniforms = ((torch.arange(QUANTILES) + 0.5) / QUANTILES)[:, None].expand(-1, GENES).contiguous()
    taken = {"time", "mean", "deviation"} & set(head.draw_constants(torch.ones(GENES)))
    assert not taken, f"draw_constants names {taken}, which the graph decoder has already; take other names"
    drawn = _draw(head, hidden, uniforms)
    assert drawn.shape == uniforms.shape, f"draw returns shape {tuple(drawn.shape)}; it has to be cells x genes"
    assert drawn.dtype == torch.float32, f"draw returns {drawn.dtype}; it has to be float32"
    assert torch.isfinite(drawn).all(), "draw returns values that are not finite"
    assert (drawn >= 0).all(), f"draw returns expression below zero: {float(drawn.min()):.3g}"
    assert (drawn.std(dim=0) > 0).all(), "draw returns the same whatever its uniform numbers are"
    alpha_bar = torch.full((1, 1), float(NoiseSchedule().alpha_bar[-1]))
    expected = head.x0(hidden[:1], torch.zeros(1, GENES), alpha_bar)[0] - ZERO
    difference = float(((drawn.mean(dim=0) - expected).abs() / (1 + expected.abs())).max())
    assert difference < 0.03, (
        f"the mean of draws over uniform numbers differs by {difference:.2g} of 1 + |x| from x0 at pure noise: "
        f"{drawn.mean(dim=0)}, {expected}"
    )


@torch.no_grad()
def _check_slab(head: Head) -> None:
    """Check that `draw` is what clients draw from `prior`: 1e-3 of 1 + value, for steep quantiles."""
    assert head.draws, "gaussian_slab is set, and the head does not draw"
    hidden, uniforms = torch.randn(CELLS, WIDTH), torch.rand(CELLS, GENES).clamp(1e-6, 1 - 1e-6)
    mean, deviation = torch.full((GENES,), -ZERO), torch.ones(GENES)
    drawn = head.draw(hidden, uniforms, mean, deviation, **head.draw_constants(deviation)).numpy()
    probability, slab_mean, slab_deviation = (each.numpy() for each in head.prior(hidden))
    assert (slab_deviation == slab_deviation[0]).all(), "prior's deviation differs between cells: clients read one's"
    scale = SlabScale(mean.numpy(), deviation.numpy(), slab_deviation[0])
    told = scale.draw(probability, slab_mean, uniforms.numpy()).toarray()
    assert (abs(told - drawn) <= 1e-3 * (1 + drawn)).all(), "draw differs from a client's draw from prior"
