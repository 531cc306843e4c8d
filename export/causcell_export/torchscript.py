"""A PyTorch module written as TorchScript, for Triton's PyTorch backend."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from causcell_export.graphs import Graph


def write_torchscript(graph: Graph, example: Mapping[str, np.ndarray], path: Path) -> None:
    """Trace a graph on an example batch and write it."""
    inputs = tuple(torch.from_numpy(example[name]) for name in graph.info.inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated in PyTorch, and what Triton's backend loads
        traced = torch.jit.freeze(torch.jit.trace(graph.module, inputs, check_trace=False))
        path.parent.mkdir(parents=True)
        torch.jit.save(traced, str(path))
