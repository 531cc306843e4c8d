"""Writing of PyTorch modules as TorchScript, for Triton's PyTorch backend."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from causcell_export.graphs import Graph, Sampler


def write_torchscript(graph: Graph, example: Mapping[str, np.ndarray], path: Path) -> None:
    """Trace a graph on an example batch (inputs by name) and write it to a file, whose folder is made."""
    inputs = tuple(torch.from_numpy(example[name]) for name in graph.info.inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated in PyTorch, and what Triton's backend loads
        if isinstance(graph.module, Sampler):
            script = _script_loop(graph.module, *inputs)
        else:
            script = torch.jit.trace(graph.module, inputs, check_trace=False)
        path.parent.mkdir(parents=True)
        torch.jit.save(torch.jit.freeze(script), str(path))


def _script_loop(sampler: Sampler, endogenous: Tensor, noise: Tensor, solver: Tensor) -> torch.jit.ScriptModule:
    """Script a sampler for any number of steps: a trace would keep the example's."""
    step = torch.jit.trace(sampler.step, (noise, noise, solver[:, 0], endogenous), check_trace=False)
    return torch.jit.script(_Loop(step, torch.jit.trace(sampler.expression, noise)).eval())


class _Loop(nn.Module):
    """`Sampler` over traced parts, in the words that TorchScript knows."""

    def __init__(self, step: torch.jit.ScriptModule, expression: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.step = step
        self.expression = expression

    def forward(self, endogenous: Tensor, noise: Tensor, solver: Tensor) -> tuple[Tensor, Tensor]:
        x_t, x0 = noise, torch.zeros_like(noise)
        for i in range(solver.size(1)):
            x_t, x0 = self.step(x_t, x0, solver[:, i], endogenous)
        expression = self.expression(x_t)
        return expression, expression.half()
