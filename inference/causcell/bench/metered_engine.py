"""An engine that counts what passes through it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from causcell.engine.protocol import Engine
from causcell.engine.status import EndpointStatus


class MeteredEngine:
    """Pass everything on to another engine, and add up time and bytes of its evaluations.

    Parameters
    ----------
    engine
        Engine that evaluates.

    Attributes
    ----------
    seconds
        Time of all evaluations so far; evaluations at once add up to more than has passed.
    bytes
        Size of all inputs and outputs so far.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.manifest, self.reference = engine.manifest, engine.reference
        self.description, self.concurrency, self.threads = engine.description, engine.concurrency, engine.threads
        self.at_hand = engine.at_hand
        self.seconds, self.bytes = 0.0, 0

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate a graph; see `causcell.engine.protocol.Engine.run`."""
        started = time.perf_counter()
        found = self._engine.run(graph, inputs, outputs)
        self.seconds += time.perf_counter() - started
        self.bytes += sum(array.nbytes for array in (*inputs.values(), *found.values()))
        return found

    def status(self) -> list[EndpointStatus]:
        """Describe the places where the other engine evaluates graphs."""
        return self._engine.status()

    def close(self) -> None:
        """Close the other engine."""
        self._engine.close()
