"""The graphs of a model repository, as PyTorch modules whose inputs and outputs are the contract's."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from causcell.diffusion.solvers import ddim, dpmpp
from causcell.repository.manifest import EXPRESSION_FLOAT16, GraphInfo, TensorInfo, logits_name
from causcell_training.heads import LARGEST_BELOW_ONE, SpikeSlabHead, normal_quantile
from causcell_training.model import CausCell


class EncoderScm(nn.Module):
    """A cell's concepts from its expression."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, expression: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exogenous mean and log-variance and endogenous embeddings, each [B x M x k], of log-scale [B x G]."""
        mean, logvar = self.model.encode(expression)
        return mean, logvar, self.model.scm(mean)


class Scm(nn.Module):
    """Endogenous embeddings under an intervention, and the labels that they tell."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model

    def forward(self, exogenous: Tensor, forced: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Endogenous [B x M x k] and logits of each concept [B x labels]; see `StructuralCausalModel.forward`."""
        endogenous = self.model.scm(exogenous, forced, mask)
        return endogenous, *self.model.label_logits(endogenous)


class Denoiser(nn.Module):
    """One step of any sampling loop, on the standardised scale, with the time embedding as a table."""

    time_table: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time_table", model.denoiser.time_table())

    def forward(self, x_t: Tensor, timestep: Tensor, endogenous: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Mean of x0 given x_t, [B x G], for x_t [B x G], timestep int64 [B x 1], endogenous [B x M x k].

        A spike-and-slab head adds its posterior: the slab's probability, mean and deviation, each [B x G].
        """
        alpha_bar = self.denoiser.alpha_bar[timestep]
        hidden = self.denoiser.hidden(x_t, self.time_table[timestep[:, 0]], alpha_bar, endogenous)
        head = self.denoiser.head
        if not isinstance(head, SpikeSlabHead):
            return head.x0(hidden, x_t, alpha_bar)
        posterior = head.posterior(hidden, x_t, alpha_bar)
        return head.mean(posterior), *posterior


class Decoder(nn.Module):
    """One draw of expression given the concepts: the spike-and-slab posterior at pure noise."""

    time: Tensor
    mean: Tensor
    deviation: Tensor
    slab_deviation: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        head = model.denoiser.head
        assert isinstance(head, SpikeSlabHead)
        with torch.no_grad():
            self.register_buffer("time", model.denoiser.time_table()[-1])
            self.register_buffer("mean", model.mean, persistent=False)
            self.register_buffer("deviation", model.deviation, persistent=False)
            self.register_buffer("slab_deviation", model.deviation * head.log_deviation.exp())

    def forward(self, endogenous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Expression on the log scale [B x G], of endogenous [B x M x k] and one uniform number a gene [B x G].

        It is given twice, the second rounded to float16, for those who ask for that.

        Most values are zero: the slab's quantile, half the time of a draw, is taken where there is a value alone. ONNX
        Runtime finds those faster among floats than among truths, and fetches them faster by element than by row.
        """
        head = self.denoiser.head
        assert isinstance(head, SpikeSlabHead)
        prior = head.prior(self.denoiser.hidden_at_noise(self.time, endogenous))
        below = (uniforms / prior.probability).flatten()
        expressed = torch.nonzero((1 - below).clamp(min=0)).flatten()
        gene = expressed % uniforms.shape[1]
        quantile = normal_quantile(below.gather(0, expressed).clamp(max=LARGEST_BELOW_ONE))
        mean = prior.mean.flatten().gather(0, expressed) * self.deviation.gather(0, gene) + self.mean.gather(0, gene)
        value = mean + self.slab_deviation.gather(0, gene) * quantile
        expression = torch.zeros_like(below).scatter(0, expressed, value.clamp(min=0)).view_as(uniforms)
        return expression, expression.half()


class SamplerStep(nn.Module):
    """One row of a solver's table."""

    time_table: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time_table", model.denoiser.time_table())

    def forward(self, x_t: Tensor, x0_previous: Tensor, row: Tensor, endogenous: Tensor) -> tuple[Tensor, Tensor]:
        """x_t of the next time and x0, [B x G], from those of this time and each cell's row (t, a, b, c, s) [B x 5]."""
        timestep, a, b, c, _ = row.split(1, dim=1)
        timestep = timestep.long()
        alpha_bar = self.denoiser.alpha_bar[timestep]
        hidden = self.denoiser.hidden(x_t, self.time_table[timestep[:, 0]], alpha_bar, endogenous)
        x0 = self.denoiser.head.x0(hidden, x_t, alpha_bar)
        return a * x_t + b * x0 + c * x0_previous, x0


class Expression(nn.Module):
    """Expression on the log scale, clipped at zero, of the standardised scale."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.register_buffer("mean", model.mean, persistent=False)
        self.register_buffer("deviation", model.deviation, persistent=False)

    def forward(self, standardised: Tensor) -> Tensor:
        """[B x G] of [B x G]."""
        return (standardised * self.deviation + self.mean).clamp(min=0)


class Sampler(nn.Module):
    """The loop of `causcell.diffusion.sampling.sample` for solvers without fresh noise and draws, whole."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.step = SamplerStep(model)
        self.expression = Expression(model)

    def forward(self, endogenous: Tensor, noise: Tensor, solver: Tensor) -> tuple[Tensor, Tensor]:
        """Expression on the log scale [B x G], of endogenous [B x M x k], the first x_t [B x G] and tables [B x S x 5].

        It is given twice, the second rounded to float16, for those who ask for that.

        Every cell has its own table (of one length), so that a server may batch requests for different solvers.
        """
        x_t, x0 = noise, torch.zeros_like(noise)
        if torch.compiler.is_exporting():
            x_t, x0 = self._scan(x_t, x0, endogenous, solver)
        else:
            for row in solver.unbind(dim=1):
                x_t, x0 = self.step(x_t, x0, row, endogenous)
        expression = self.expression(x_t)
        return expression, expression.half()

    def _scan(self, x_t: Tensor, x0: Tensor, endogenous: Tensor, solver: Tensor) -> tuple[Tensor, Tensor]:
        """The loop as an operator, which a graph keeps for any number of steps."""

        def step(carry: tuple[Tensor, Tensor], row: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
            x_t, x0 = self.step(*carry, row, endogenous)
            return (x_t, x0.clone()), ()

        carry, _ = scan(step, (x_t, x0), solver.transpose(0, 1))
        return carry


@dataclass(frozen=True)
class Tolerance:
    """How far an exported graph may be from the trained model.

    Attributes
    ----------
    limit
        Largest difference, relative to 1 + |value|: float32 sums of thousands of terms differ by about 1e-6.
    beyond
        Share of values that may differ by more.
    """

    limit: float = 1e-4
    beyond: float = 0.0


@dataclass(frozen=True)
class Graph:
    """A module to export, its inputs and outputs by name, and the tolerance of its values."""

    module: nn.Module
    info: GraphInfo
    tolerance: Tolerance = Tolerance()


def graphs(model: CausCell) -> dict[str, Graph]:
    """All graphs of a model, by name."""
    genes, concepts, embedding = len(model.preprocessing.genes), model.schema.size, model.config.embedding
    expression = TensorInfo(dtype="float32", shape=(genes,))
    generated = {"expression": expression, EXPRESSION_FLOAT16: TensorInfo(dtype="float16", shape=(genes,))}
    concept = TensorInfo(dtype="float32", shape=(concepts, embedding))
    logits = {logits_name(c.name): TensorInfo(dtype="float32", shape=(len(c.labels),)) for c in model.schema.concepts}
    draws = isinstance(model.denoiser.head, SpikeSlabHead)
    posterior = dict.fromkeys(("slab_probability", "slab_mean", "slab_deviation"), expression)
    found = {
        "encoder_scm": Graph(
            EncoderScm(model).eval(),
            GraphInfo(
                inputs={"expression": expression},
                outputs={"exogenous_mean": concept, "exogenous_logvar": concept, "endogenous": concept},
            ),
        ),
        "scm": Graph(
            Scm(model).eval(),
            GraphInfo(
                inputs={
                    "exogenous": concept,
                    "forced": concept,
                    "mask": TensorInfo(dtype="float32", shape=(concepts,)),
                },
                outputs={"endogenous": concept, **logits},
            ),
        ),
        "denoiser": Graph(
            Denoiser(model).eval(),
            GraphInfo(
                inputs={
                    "x_t": expression,
                    "timestep": TensorInfo(dtype="int64", shape=(1,)),
                    "endogenous": concept,
                },
                outputs={"x0": expression, **(posterior if draws else {})},
            ),
        ),
        "sampler": Graph(
            Sampler(model).eval(),
            GraphInfo(
                inputs={
                    "endogenous": concept,
                    "noise": expression,
                    "solver": TensorInfo(dtype="float32", shape=(-1, 5)),
                },
                outputs=generated,
            ),
            # a step magnifies what the one before differed by, where x_t is between zero and the slab
            Tolerance(beyond=1e-3),
        ),
    }
    if draws:
        found["decoder"] = Graph(
            Decoder(model).eval(),
            GraphInfo(inputs={"endogenous": concept, "uniforms": expression}, outputs=generated),
            # quantiles are steep near 0 and 1; where u is within rounding of the slab's probability a value flips
            Tolerance(limit=1e-3, beyond=1e-4),
        )
    return found


def lowered_graphs(model: CausCell) -> dict[str, Graph]:
    """Graphs whose denoiser multiplies at half precision, with the tolerance of that; the others as they are."""
    model = deepcopy(model)
    model.denoiser.lower(torch.float16)
    return {
        name: graph if name in ("encoder_scm", "scm") else replace(graph, tolerance=Tolerance(1e-2, 1e-3))
        for name, graph in graphs(model).items()
    }


@torch.no_grad()
def example_inputs(
    model: CausCell, expression: np.ndarray, batch: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of every graph for a batch of real cells (repeated as needed): interventions, times and solvers are mixed.

    Parameters
    ----------
    expression
        Log scale, float32 [n x G].
    """
    rng = np.random.default_rng((seed, batch))
    x = np.resize(rng.permutation(expression), (batch, expression.shape[1])).astype(np.float32)
    exogenous = model.encode(torch.from_numpy(x))[0].numpy()
    endogenous = model.scm(torch.from_numpy(exogenous)).numpy()
    timestep = rng.integers(model.schedule.timesteps, size=(batch, 1))
    alpha_bar = model.schedule.alpha_bar[timestep]
    noise = np.asarray(rng.standard_normal(x.shape), dtype=np.float32)
    x_t = np.sqrt(alpha_bar) * model.preprocessing.standardise(x) + np.sqrt(1 - alpha_bar) * noise
    solvers = np.stack([solver(model.schedule, 5).table for solver in (ddim, dpmpp)])
    return {
        "encoder_scm": {"expression": x},
        "scm": {
            "exogenous": exogenous,
            "forced": rng.permutation(endogenous),
            "mask": rng.integers(2, size=(batch, model.schema.size)).astype(np.float32),
        },
        "denoiser": {"x_t": x_t.astype(np.float32), "timestep": timestep, "endogenous": endogenous},
        "sampler": {
            "endogenous": endogenous,
            "noise": noise,
            "solver": np.resize(solvers, (batch, *solvers.shape[1:])).astype(np.float32),
        },
        "decoder": {"endogenous": endogenous, "uniforms": np.clip(rng.random(x.shape, dtype=np.float32), 1e-7, 1)},
    }
