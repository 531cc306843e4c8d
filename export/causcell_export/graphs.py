"""Graphs of a model repository, as PyTorch modules whose inputs and outputs are the contract's.

Shapes: B cells, G panel genes, M concepts with the unexplained one last, k numbers a concept, S steps of a solver.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from causcell.diffusion.sampling import POSTERIOR_OUTPUTS
from causcell.diffusion.solvers import ddim, dpmpp
from causcell.repository.manifest import (
    ABDUCTION,
    EXPRESSION_FLOAT16,
    INFORMED,
    PRIOR,
    SLAB,
    GraphInfo,
    TensorInfo,
    logits_name,
    value_name,
)
from causcell_export.concept_modules import Abduction, EncoderScm, InformedByValues, Prior, Scm
from causcell_training.model import CausCell


class Denoiser(nn.Module):
    """One step of any sampling loop, on the standardised scale, with the time embedding as a table."""

    time_table: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time_table", model.denoiser.time_table())

    def forward(self, x_t: Tensor, timestep: Tensor, endogenous: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the head's answer: the posterior mean of x0, and what else `Head.denoiser_outputs` names.

        Parameters
        ----------
        x_t
            Noised cells, float32 [B x G].
        timestep
            int64 [B x 1].
        endogenous
            float32 [B x M x k].

        Returns
        -------
        float32 [B x G] each.
        """
        alpha_bar = self.denoiser.alpha_bar[timestep]
        hidden = self.denoiser.hidden(x_t, self.time_table[timestep[:, 0]], alpha_bar, endogenous)
        x0, *others = self.denoiser.head.denoise(hidden, x_t, alpha_bar)
        return (x0, *others) if others else x0


class Decoder(nn.Module):
    """One posterior draw of expression at pure noise, given the concepts alone: `Head.draw`."""

    time: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time", model.denoiser.time_table()[-1])
            self.register_buffer("mean", model.mean, persistent=False)
            self.register_buffer("deviation", model.deviation, persistent=False)
            constants = model.denoiser.head.draw_constants(model.deviation)
            for name, constant in constants.items():
                self.register_buffer(name, constant)
        self._constants = tuple(constants)

    def forward(self, endogenous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return expression on the log scale, float32 [B x G], and the same rounded to float16.

        Parameters
        ----------
        endogenous
            float32 [B x M x k].
        uniforms
            One uniform number a gene, float32 [B x G].
        """
        return self.draw(self.hidden(endogenous), uniforms)

    def hidden(self, endogenous: Tensor) -> Tensor:
        """Return the hidden state at pure noise [B x d]."""
        return self.denoiser.hidden_at_noise(self.time, endogenous)

    def draw(self, hidden: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return a draw from a hidden state, as `forward` does."""
        constants = {name: self.get_buffer(name) for name in self._constants}
        expression = self.denoiser.head.draw(hidden, uniforms, self.mean, self.deviation, **constants)
        return expression, expression.half()


class Slab(nn.Module):
    """Distribution that `Decoder` draws from: spike and slab at pure noise, given the concepts alone."""

    time: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time", model.denoiser.time_table()[-1])

    def forward(self, endogenous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slab's probability, mean and deviation, standardised, float32 [B x G] each.

        Parameters
        ----------
        endogenous
            float32 [B x M x k].
        """
        probability, mean, deviation = self.denoiser.head.prior(self.denoiser.hidden_at_noise(self.time, endogenous))
        return probability, mean, deviation


class SamplerStep(nn.Module):
    """One row of a solver's table."""

    time_table: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        with torch.no_grad():
            self.register_buffer("time_table", model.denoiser.time_table())

    def forward(self, x_t: Tensor, x0_previous: Tensor, row: Tensor, endogenous: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t of the next time and x0, float32 [B x G] each.

        Parameters
        ----------
        x_t, x0_previous
            Of this time, and the x0 of the time before, float32 [B x G].
        row
            Each cell's row (t, a, b, c, s) of its solver's table, float32 [B x 5].
        endogenous
            float32 [B x M x k].
        """
        timestep, a, b, c, _ = row.split(1, dim=1)
        timestep = timestep.long()
        alpha_bar = self.denoiser.alpha_bar[timestep]
        hidden = self.denoiser.hidden(x_t, self.time_table[timestep[:, 0]], alpha_bar, endogenous)
        x0 = self.denoiser.head.x0(hidden, x_t, alpha_bar)
        return a * x_t + b * x0 + c * x0_previous, x0


class Expression(nn.Module):
    """Map from the standardised scale to expression on the log scale, clipped at zero."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.register_buffer("mean", model.mean, persistent=False)
        self.register_buffer("deviation", model.deviation, persistent=False)

    def forward(self, standardised: Tensor) -> Tensor:
        """Return expression, float32 [B x G], of standardised values, float32 [B x G]."""
        return (standardised * self.deviation + self.mean).clamp(min=0)


class Sampler(nn.Module):
    """Fused loop: `causcell.diffusion.sampling.sample`, for solvers that neither draw nor add noise."""

    def __init__(self, model: CausCell) -> None:
        super().__init__()
        self.step = SamplerStep(model)
        self.expression = Expression(model)

    def forward(self, endogenous: Tensor, noise: Tensor, solver: Tensor) -> tuple[Tensor, Tensor]:
        """Return expression on the log scale, float32 [B x G], and the same rounded to float16.

        Parameters
        ----------
        endogenous
            float32 [B x M x k].
        noise
            First x_t, standard normals, float32 [B x G].
        solver
            Table of each cell, float32 [B x S x 5]: a server may batch requests for different solvers of one length.
        """
        x_t, x0 = noise, torch.zeros_like(noise)
        for row in solver.unbind(dim=1):
            x_t, x0 = self.step(x_t, x0, row, endogenous)
        expression: Tensor = self.expression(x_t)
        return expression, expression.half()


@dataclass(frozen=True)
class Tolerance:
    """Largest difference allowed between an exported graph and the trained model.

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
    """A module to export, its inputs and outputs by name, and the tolerance of its values.

    Attributes
    ----------
    module
        Takes and returns tensors in the order of `info`.
    info
        Inputs and outputs by name, with types and shapes.
    tolerance
        Largest difference between the exported file's values and the module's.
    """

    module: nn.Module
    info: GraphInfo
    tolerance: Tolerance = Tolerance()


def graphs(model: CausCell) -> dict[str, Graph]:
    """Build all graphs of a model, by name; ``decoder`` and ``slab`` where the head draws so."""
    return _concept_graphs(model) | _diffusion_graphs(model)


def _tensors(model: CausCell) -> tuple[TensorInfo, TensorInfo]:
    """Return what describes an array of genes, [G], and one of concepts, [M x k]."""
    genes, concepts = len(model.preprocessing.genes), model.schema.size
    return (
        TensorInfo(dtype="float32", shape=(genes,)),
        TensorInfo(dtype="float32", shape=(concepts, model.config.embedding)),
    )


def _concept_graphs(model: CausCell) -> dict[str, Graph]:
    """Build the graphs from expression to concepts and among concepts."""
    expression, concept = _tensors(model)
    logits = {logits_name(c.name): TensorInfo(dtype="float32", shape=(len(c.labels),)) for c in model.schema.concepts}
    encoded = {"exogenous_mean": concept, "exogenous_logvar": concept, "endogenous": concept}
    mask = TensorInfo(dtype="float32", shape=(model.schema.size,))
    told = logits | {value_name(name): TensorInfo(dtype="float32", shape=(1,)) for name in model.number_names}
    forced = {"exogenous": concept, "forced": concept, "mask": mask}
    found = {
        "encoder_scm": Graph(EncoderScm(model).eval(), GraphInfo(inputs={"expression": expression}, outputs=encoded)),
        "scm": Graph(Scm(model).eval(), GraphInfo(inputs=forced, outputs={"endogenous": concept, **told})),
    }
    labels = TensorInfo(dtype="int64", shape=(len(model.schema.concepts),))
    known = {"labels": labels}
    abduction: nn.Module = Abduction(model)
    if model.schema.has_values:
        known = {"values": TensorInfo(dtype="float32", shape=(model.schema.value_slices[-1].stop,))}
        abduction = InformedByValues(model)
        observed = TensorInfo(dtype="float32", shape=(len(model.schema.concepts), model.config.embedding))
        prior = GraphInfo(inputs=known, outputs={"mean": observed, "logvar": observed})
        found[PRIOR] = Graph(Prior(model).eval(), prior)
    if model.config.abduction == "informed":
        read = {"exogenous": concept, **known}
        found[ABDUCTION] = Graph(abduction.eval(), GraphInfo(inputs=read, outputs={INFORMED: concept}))
    return found


def _diffusion_graphs(model: CausCell) -> dict[str, Graph]:
    """Build the graphs from concepts to expression."""
    expression, concept = _tensors(model)
    generated = {"expression": expression, EXPRESSION_FLOAT16: TensorInfo(dtype="float16", shape=expression.shape)}
    head = model.denoiser.head
    timestep, table = TensorInfo(dtype="int64", shape=(1,)), TensorInfo(dtype="float32", shape=(-1, 5))
    found = {
        "denoiser": Graph(
            Denoiser(model).eval(),
            GraphInfo(
                inputs={"x_t": expression, "timestep": timestep, "endogenous": concept},
                outputs=dict.fromkeys(head.denoiser_outputs, expression),
            ),
        ),
        "sampler": Graph(
            Sampler(model).eval(),
            GraphInfo(inputs={"endogenous": concept, "noise": expression, "solver": table}, outputs=generated),
            # a step magnifies what the one before differed by, where x_t is between zero and the slab
            Tolerance(beyond=1e-3),
        ),
    }
    if head.draws:
        found["decoder"] = Graph(
            Decoder(model).eval(),
            GraphInfo(inputs={"endogenous": concept, "uniforms": expression}, outputs=generated),
            # quantiles are steep near 0 and 1; where u is within rounding of the slab's probability a value flips
            Tolerance(limit=1e-3, beyond=1e-4),
        )
    if head.gaussian_slab:
        slab = GraphInfo(inputs={"endogenous": concept}, outputs=dict.fromkeys(POSTERIOR_OUTPUTS, expression))
        found[SLAB] = Graph(Slab(model).eval(), slab)
    return found


def lowered_graphs(model: CausCell) -> dict[str, Graph]:
    """Build graphs whose denoiser multiplies at half precision, with its tolerance; the others are unchanged."""
    model = deepcopy(model)
    model.denoiser.lower(torch.float16)
    concepts = _concept_graphs(model)
    return {
        name: graph if name in concepts else replace(graph, tolerance=Tolerance(1e-2, 1e-3))
        for name, graph in graphs(model).items()
    }


@torch.no_grad()
def example_inputs(
    model: CausCell, expression: np.ndarray, batch: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Make inputs of every graph from a batch of real cells: interventions, times and solvers are mixed.

    Parameters
    ----------
    model
        The trained model.
    expression
        Real cells, log scale, float32 [n x G]; they are repeated as needed.
    batch
        Number of cells B.
    seed
        Seed of what is mixed.

    Returns
    -------
    Arrays by name of the input, by name of the graph; graphs included that not every model has.
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
    labels = [rng.integers(-1, len(concept.labels), size=batch) for concept in model.schema.concepts]
    known = {"labels": np.stack(labels, axis=1)}
    if model.schema.has_values:
        known = {"values": _example_values(model, labels)}
    return {
        "encoder_scm": {"expression": x},
        ABDUCTION: {"exogenous": exogenous, **known},
        PRIOR: known,
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
        SLAB: {"endogenous": endogenous},
        "decoder": {"endogenous": endogenous, "uniforms": np.clip(rng.random(x.shape, dtype=np.float32), 1e-7, 1)},
    }


def _example_values(model: CausCell, labels: list[np.ndarray]) -> np.ndarray:
    """Return the values, float32 [B x V], of label codes of each concept, int [B] each; NaN for -1."""
    concepts = model.schema.concepts
    parts = [
        np.where(c[:, None] < 0, np.float32(np.nan), each.values[c]) for each, c in zip(concepts, labels, strict=True)
    ]
    return np.concatenate(parts, axis=1)
