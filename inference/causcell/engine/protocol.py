"""The interface of engines, which evaluate the ONNX graphs of a model; nothing above them knows which one it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from causcell.engine.outputs import fits
from causcell.engine.status import EndpointStatus
from causcell.errors import EngineError, format_list
from causcell.repository.manifest import GraphInfo, Manifest
from causcell.repository.reference_cells import ReferenceCells


class Engine(Protocol):
    """Evaluate the ONNX graphs of one model.

    An engine may be used from several threads at once.

    Attributes
    ----------
    manifest
        Manifest of the model.
    reference
        Reference cells that interventions draw from.
    description
        One line for provenance: the runtime, its version and where it runs.
    concurrency
        Number of evaluations worth asking for at once, each from its own thread.
    threads
        Compute threads in this process; `None` where the model is served.
    at_hand
        True if graphs are evaluated by this process's CPUs: their outputs cost next to nothing to fetch, and what is
        quicker outside a graph is done outside.
    """

    manifest: Manifest
    reference: ReferenceCells
    description: str
    concurrency: int
    threads: int | None
    at_hand: bool

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate a graph.

        Parameters
        ----------
        graph
            Name of the graph, a key of ``manifest.graphs``.
        inputs
            One array for each input, [B x ...], of the dtype and shape that ``manifest.graphs[graph].inputs`` states.
        outputs
            Names of the wanted outputs; all, if not given.

        Returns
        -------
        The outputs by name, [B x ...], of the dtypes and shapes that ``manifest.graphs[graph].outputs`` states.

        Raises
        ------
        EngineError
            There is no such graph, the inputs are not the graph's, the evaluation failed, or the outputs are not what
            the manifest states (`causcell.engine.outputs.check_answer`); or the engine is closed.
        """
        ...

    def status(self) -> list[EndpointStatus]:
        """Describe each place where graphs are evaluated: one entry for this process, or one for each server."""
        ...

    def close(self) -> None:
        """Release what the engine holds: sessions, connections, shared memory."""
        ...


def check_request(
    manifest: Manifest, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
) -> GraphInfo:
    """Check what `Engine.run` was given, and return what the manifest states about the graph.

    Parameters
    ----------
    manifest
        Manifest of the model.
    graph
        Name of the graph.
    inputs
        Arrays by name, [B x ...].
    outputs
        Names of the wanted outputs; all, if not given.

    Raises
    ------
    EngineError
        There is no such graph or output; or the inputs' names, dtypes or shapes are not the graph's, or their batch
        sizes differ.
    """
    if graph not in manifest.graphs:
        raise EngineError(f"there is no graph {graph!r}; this model has {format_list(manifest.graphs)}")
    info = manifest.graphs[graph]
    if set(inputs) != set(info.inputs):
        raise EngineError(f"graph {graph!r} takes {format_list(info.inputs)}, and was given {format_list(inputs)}")
    batch_sizes = {len(array) for array in inputs.values()}
    if len(batch_sizes) != 1:
        raise EngineError(f"the inputs of graph {graph!r} are of different batch sizes: {sorted(batch_sizes)}")
    for name, tensor in info.inputs.items():
        if not fits(inputs[name], tensor):
            raise EngineError(
                f"input {name!r} of graph {graph!r} is {inputs[name].dtype} {list(inputs[name].shape)}; it takes "
                f"{tensor.dtype} [{', '.join(['batch', *('any' if size < 0 else str(size) for size in tensor.shape)])}]"
            )
    unknown = [name for name in outputs or () if name not in info.outputs]
    if unknown:
        raise EngineError(f"graph {graph!r} has no output {format_list(unknown)}; it has {format_list(info.outputs)}")
    return info
