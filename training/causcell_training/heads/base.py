"""Base class of heads: all that training, export and the client read of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from causcell.diffusion.solvers import SolverSettings

REGRESSION_PRESETS: Mapping[str, SolverSettings] = {
    "mean": SolverSettings("mean"),
    "balanced": SolverSettings("dpmpp", steps=20),
    "accurate": SolverSettings("ddpm", steps=250),
}
"""Presets of heads that regress x0 and so have no distribution to draw from."""


class Head(nn.Module, ABC):
    """Last layer of the denoiser: p(x0 | x_t, z) of every gene, or its mean alone.

    The denoiser's hidden state h (float32 [B x d], or float16 where matrix products are lowered) tells of x_t, t and
    z; a head turns it into the posterior of the clean x0 given ``x_t = sqrt(abar) x0 + sqrt(1 - abar) noise``. Shapes:
    B cells, G genes, d the hidden width. All is on the standardised scale, except what `draw` returns.

    Modules that a head holds as attributes multiply matrices and may be lowered to half precision; its own parameters,
    buffers and arithmetic stay at single precision.

    Parameters
    ----------
    width
        d.
    zero
        Standardised zero expression, float32 [G].

    Attributes
    ----------
    loss_names
        Names of what `losses` returns, of `causcell_training.heads.LOSSES`: training refuses to run where the weight of
        each is 0.
    presets
        Solver settings by name, the default first: what a user chooses among. ``mean`` has to be one; the exporter
        makes the cheapest one the default whose samples are about as good as those of ``accurate``.
    draws
        True if `draw` makes a posterior draw at pure noise: then the exporter writes the graph ``decoder``, which the
        solver ``draw`` evaluates at one step.
    gaussian_slab
        True if `draw` is zero or, with the probability that `prior` gives, a Gaussian's quantile at u / probability:
        then the exporter writes the graph ``slab`` too, from which a client draws without a graph's tail.
    denoiser_outputs
        Names of what `denoise` returns, ``x0`` first: outputs of the graph ``denoiser``. The solver ``draw`` takes more
        than one step only where they include `causcell.diffusion.sampling.POSTERIOR_OUTPUTS`.
    """

    loss_names: ClassVar[tuple[str, ...]] = ("reconstruction",)
    presets: ClassVar[Mapping[str, SolverSettings]] = REGRESSION_PRESETS
    draws: ClassVar[bool] = False
    gaussian_slab: ClassVar[bool] = False
    denoiser_outputs: ClassVar[tuple[str, ...]] = ("x0",)

    @abstractmethod
    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__()

    @abstractmethod
    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the posterior mean E[x0 | x_t], of the type of ``x_t``.

        Parameters
        ----------
        hidden
            Last hidden state h [B x d].
        x_t
            Noised cells, float32 [B x G].
        alpha_bar
            abar of each cell's time, float32 [B x 1].

        Returns
        -------
        float32 [B x G].
        """

    @abstractmethod
    def losses(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return what training minimises, by name, for each cell and gene, float32 [B x G].

        ``reconstruction`` is averaged with each gene's variance as its weight, so that errors count as on the log
        scale; ``likelihood`` is averaged as it is, in nats.

        Parameters
        ----------
        hidden, x_t, alpha_bar
            As `x0` takes them.
        x
            Clean cells, float32 [B x G].
        """

    def denoise(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the graph ``denoiser``, float32 [B x G] each, in the order of `denoiser_outputs`."""
        return (self.x0(hidden, x_t, alpha_bar),)

    def prior(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probability, mean and deviation of the slab at pure noise (abar = 0), float32 [B x G] each.

        They are `causcell.diffusion.sampling.POSTERIOR_OUTPUTS` there, on the standardised scale.

        Raises
        ------
        NotImplementedError
            The head is no `gaussian_slab`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no slab")

    def draw_constants(self, deviation: Tensor) -> dict[str, Tensor]:
        """Return tensors that `draw` takes by name and that no cell changes: they are computed once, at export.

        Their names become those of weights in the graph ``decoder``; ``time``, ``mean`` and ``deviation`` are taken.

        Parameters
        ----------
        deviation
            Standard deviation of each gene's expression on the log scale, float32 [G].
        """
        return {}

    def draw(self, hidden: Tensor, uniforms: Tensor, mean: Tensor, deviation: Tensor, **constants: Tensor) -> Tensor:
        """Return a posterior draw of expression at pure noise (abar = 0): a cell given its concepts alone.

        Parameters
        ----------
        hidden
            Hidden state at pure noise [B x d].
        uniforms
            One uniform number a gene, within (0, 1), float32 [B x G].
        mean, deviation
            Of each gene's expression, float32 [G]: expression is ``x0 * deviation + mean``, clipped at 0.
        constants
            What `draw_constants` returned.

        Returns
        -------
        Expression on the log scale, not negative, float32 [B x G].

        Raises
        ------
        NotImplementedError
            The head does not draw.
        """
        raise NotImplementedError(f"{type(self).__name__} has no distribution to draw from")
