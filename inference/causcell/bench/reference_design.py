"""Two yardsticks, each timed by numpy alone: the reference design, and plain matrix products.

They run in a process of their own: numpy's threads are chosen when it is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from causcell.bench.timing import BATCH_SIZE, count_operations, median, run_python, time_calls


class ReferenceDesign:
    """The reference design: a denoiser as wide as the gene panel, whose samples take 1,000 steps.

    CausCell's own network is narrower and takes fewer steps; this one shows what that is worth. It has two blocks of
    cross-attention to concept tokens (queries, keys, values, output) and GEGLU feed-forward; the timestep is embedded
    anew at every step; a step combines x_t, the predicted x0 and fresh noise. Its weights are random.

    Parameters
    ----------
    genes
        G, genes of the panel: the width of the network.
    """

    STEPS = 1000
    BLOCKS = 2
    TOKENS = 4
    TOKEN_WIDTH = 36

    def __init__(self, genes: int) -> None:
        self._rng = np.random.default_rng(0)
        self.width = genes
        shapes = {"input": (genes, genes), "time": (genes, genes), "output": (genes, genes)}
        for block in range(self.BLOCKS):
            shapes |= {f"query{block}": (genes, genes), f"mixed{block}": (genes, genes)}
            shapes |= {f"key{block}": (self.TOKEN_WIDTH, genes), f"value{block}": (self.TOKEN_WIDTH, genes)}
            shapes |= {f"expand{block}": (genes, 4 * genes), f"contract{block}": (2 * genes, genes)}
        self._weights = {
            name: self._rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
            for name, shape in shapes.items()
        }

    def step(self, x: np.ndarray, tokens: np.ndarray, t: int) -> np.ndarray:
        """Take one step of a sample.

        Parameters
        ----------
        x
            x_t, float32 [B x G].
        tokens
            Concept tokens, float32 [B x 4 x 36].
        t
            Timestep.

        Returns
        -------
        x at the next timestep, float32 [B x G].
        """
        weights = self._weights
        angles = t * np.exp(-np.arange(self.width // 2) / self.width)
        time_embedding = np.resize(np.concatenate([np.sin(angles), np.cos(angles)]), self.width).astype(np.float32)
        hidden = x @ weights["input"] + time_embedding @ weights["time"]
        for block in range(self.BLOCKS):
            normalised = _normalise(hidden)
            query, keys = normalised @ weights[f"query{block}"], tokens @ weights[f"key{block}"]
            scores = np.einsum("bd,bmd->bm", query, keys, optimize=True) / np.float32(np.sqrt(self.width))
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            mixed = np.einsum("bm,bmd->bd", scores, tokens @ weights[f"value{block}"], optimize=True)
            hidden = hidden + mixed @ weights[f"mixed{block}"]
            value, gate = np.split(_normalise(hidden) @ weights[f"expand{block}"], 2, axis=1)
            gate = gate / (1 + np.exp(np.float32(-1.702) * gate))  # GELU by its sigmoid approximation
            hidden = hidden + (value * gate) @ weights[f"contract{block}"]
        x0 = _normalise(hidden) @ weights["output"]
        following: np.ndarray = 0.5 * x + 0.5 * x0 + 0.1 * self._rng.standard_normal(x.shape, dtype=np.float32)
        return following

    def cells_per_second(self, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Measure the rate of samples of 1,000 steps, from the median time of a few steps.

        Parameters
        ----------
        seconds
            Time for the measurement.
        batch
            Cells in a batch.
        """
        x = self._rng.standard_normal((batch, self.width), dtype=np.float32)
        tokens = self._rng.standard_normal((batch, self.TOKENS, self.TOKEN_WIDTH), dtype=np.float32)
        return batch / (median(time_calls(lambda: self.step(x, tokens, 500), seconds)) * self.STEPS)


def _normalise(hidden: np.ndarray) -> np.ndarray:
    """Layer-normalise without scale and shift."""
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    normalised: np.ndarray = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
    return normalised


def gemm_gflops(products: Sequence[tuple[int, int]], seconds: float, batch: int = BATCH_SIZE) -> float:
    """Measure the rate of matrix products alone, into memory that is there.

    Parameters
    ----------
    products
        Shapes [k x n] of the right operands; the left ones are [batch x k].
    seconds
        Time for the measurement.
    batch
        Rows of the left operands.

    Returns
    -------
    10^9 floating-point operations a second.
    """
    rng = np.random.default_rng(0)
    operands = [
        (
            rng.standard_normal((batch, k), dtype=np.float32),
            rng.standard_normal((k, n), dtype=np.float32),
            np.empty((batch, n), dtype=np.float32),
        )
        for k, n in products
    ]

    def multiply() -> None:
        for a, b, out in operands:
            np.matmul(a, b, out=out)

    return count_operations(products, batch) / median(time_calls(multiply, seconds)) / 1e9


class _Task(TypedDict):
    """Input of the new process, as JSON."""

    products: list[tuple[int, int]]
    genes: int
    seconds: float
    with_reference_design: bool


def measure_yardsticks(
    products: Sequence[tuple[int, int]], genes: int, threads: int, seconds: float
) -> dict[str, float]:
    """Measure plain matrix products and, at one thread, the reference design, in a new process.

    Parameters
    ----------
    products
        Shapes [k x n] of the right operands.
    genes
        Width of the reference design.
    threads
        Threads of numpy's BLAS.
    seconds
        Time for each figure.

    Returns
    -------
    ``gemm_gflops``, and ``reference_cells_per_second`` at one thread.
    """
    task: _Task = {
        "products": list(products),
        "genes": genes,
        "seconds": seconds,
        "with_reference_design": threads == 1,
    }
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    code = "from causcell.bench.reference_design import print_yardsticks; print_yardsticks()"
    figures: dict[str, float] = json.loads(run_python(code, json.dumps(task), limits))
    return figures


def print_yardsticks() -> None:
    """Read a task from standard input, and print its figures as JSON: the new process of `measure_yardsticks`."""
    task: _Task = json.load(sys.stdin)
    figures = {"gemm_gflops": gemm_gflops(task["products"], task["seconds"])}
    if task["with_reference_design"]:
        figures["reference_cells_per_second"] = ReferenceDesign(task["genes"]).cells_per_second(task["seconds"])
    print(json.dumps(figures))
