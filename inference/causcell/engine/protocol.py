"""Engines evaluate the graphs of a model repository; nothing above them knows which one it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from causcell.errors import EngineError, format_list
from causcell.repository.manifest import GraphInfo, Manifest
from causcell.repository.reference_cells import ReferenceCells


class Engine(Protocol):
    """What evaluates graphs.

    Attributes
    ----------
    manifest
        Of the model.
    reference
        Reference cells that interventions draw from.
    description
        One line for provenance: the runtime, its version and where it runs.
    concurrency
        Evaluations that it gains from being asked for at once, from as many threads.
    """

    manifest: Manifest
    reference: ReferenceCells
    description: str
    concurrency: int

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of a graph (all, or those named), by name, each with the batch first. Raises `EngineError`."""
        ...

    def close(self) -> None:
        """Let go of what the engine holds."""
        ...


def checked_graph(manifest: Manifest, graph: str, inputs: dict[str, np.ndarray]) -> GraphInfo:
    """A graph's inputs and outputs; raises `EngineError` unless there is one, and the arrays are its, of one batch."""
    if graph not in manifest.graphs:
        raise EngineError(f"there is no graph {graph!r}; this model has {format_list(manifest.graphs)}")
    info = manifest.graphs[graph]
    if set(inputs) != set(info.inputs):
        raise EngineError(f"graph {graph!r} takes {format_list(info.inputs)}, and was given {format_list(inputs)}")
    batch = {len(array) for array in inputs.values()}
    if len(batch) != 1:
        raise EngineError(f"the inputs of graph {graph!r} are of different batch sizes: {sorted(batch)}")
    for name, tensor in info.inputs.items():
        array = inputs[name]
        fits = array.ndim == len(tensor.shape) + 1 and all(
            size in (-1, found) for size, found in zip(tensor.shape, array.shape[1:], strict=True)
        )
        if array.dtype != tensor.dtype or not fits:
            raise EngineError(
                f"input {name!r} of graph {graph!r} is {array.dtype} {list(array.shape)}; it takes {tensor.dtype} "
                f"[{', '.join(['batch', *('any' if size < 0 else str(size) for size in tensor.shape)])}]"
            )
    return info
