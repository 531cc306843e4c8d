"""The graphs of a model repository, as PyTorch modules whose inputs and outputs are the contract's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from causcell.interventions import logits_name
from causcell.manifest import GraphInfo, TensorInfo
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

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.register_buffer("time", model.denoiser.time_table()[-1])

    def forward(self, endogenous: Tensor, uniforms: Tensor) -> Tensor:
        """Expression on the log scale [B x G], of endogenous [B x M x k] and one uniform number a gene [B x G]."""
        head = self.model.denoiser.head
        assert isinstance(head, SpikeSlabHead)
        prior = head.prior(self.model.denoiser.hidden_at_noise(self.time, endogenous))
        below = (uniforms / prior.probability).clamp(max=LARGEST_BELOW_ONE)
        value = prior.mean + prior.deviation * normal_quantile(below)
        expression = (value * self.model.deviation + self.model.mean).clamp(min=0)
        return torch.where(uniforms < prior.probability, expression, torch.zeros_like(expression))


@dataclass(frozen=True)
class Graph:
    """A module to export, and its inputs and outputs by name."""

    module: nn.Module
    info: GraphInfo


def graphs(model: CausCell) -> dict[str, Graph]:
    """All graphs of a model, by name."""
    genes, concepts, embedding = len(model.preprocessing.genes), model.schema.size, model.config.embedding
    expression = TensorInfo(dtype="float32", shape=(genes,))
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
    }
    if draws:
        found["decoder"] = Graph(
            Decoder(model).eval(),
            GraphInfo(inputs={"endogenous": concept, "uniforms": expression}, outputs={"expression": expression}),
        )
    return found


@torch.no_grad()
def example_inputs(
    model: CausCell, expression: np.ndarray, batch: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of every graph for a batch of real cells (repeated as needed): interventions and times are mixed.

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
    noise = rng.standard_normal(x.shape)
    x_t = np.sqrt(alpha_bar) * model.preprocessing.standardise(x) + np.sqrt(1 - alpha_bar) * noise
    return {
        "encoder_scm": {"expression": x},
        "scm": {
            "exogenous": exogenous,
            "forced": rng.permutation(endogenous),
            "mask": rng.integers(2, size=(batch, model.schema.size)).astype(np.float32),
        },
        "denoiser": {"x_t": x_t.astype(np.float32), "timestep": timestep, "endogenous": endogenous},
        "decoder": {"endogenous": endogenous, "uniforms": np.clip(rng.random(x.shape, dtype=np.float32), 1e-7, 1)},
    }
