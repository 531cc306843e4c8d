"""The reference design that a model is held against: a network as wide as the panel, 1,000 steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np

from causcell.bench.timing import BATCH_SIZE, count_operations, median, run_python, time_calls

# -- what it is held against, in a process of its own: numpy's threads are chosen at its import ----------------


class ReferenceDesign:
    """One step of the design that this package is not: a denoiser as wide as the panel, its attention in full.

    Two blocks of cross-attention to concept tokens (queries, keys, values, output), and GEGLU feed-forward; the time
    embedded anew at every step; the mean of x0, and fresh noise. A sample takes 1,000 of these.
    """

    STEPS = 1000
    BLOCKS = 2
    TOKENS = 4
    TOKEN = 36

    def __init__(self, genes: int) -> None:
        self._rng = np.random.default_rng(0)
        self.width = genes
        shapes = {"input": (genes, genes), "time": (genes, genes), "output": (genes, genes)}
        for block in range(self.BLOCKS):
            shapes |= {f"query{block}": (genes, genes), f"mixed{block}": (genes, genes)}
            shapes |= {f"key{block}": (self.TOKEN, genes), f"value{block}": (self.TOKEN, genes)}
            shapes |= {f"expand{block}": (genes, 4 * genes), f"contract{block}": (2 * genes, genes)}
        self._weights = {
            name: self._rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
            for name, shape in shapes.items()
        }

    def step(self, x: np.ndarray, tokens: np.ndarray, t: int) -> np.ndarray:
        """x of the next time, [B x G], from x [B x G] and concept tokens [B x 4 x 36]."""
        w = self._weights
        angles = t * np.exp(-np.arange(self.width // 2) / self.width)
        time_ = np.resize(np.concatenate([np.sin(angles), np.cos(angles)]), self.width).astype(np.float32) @ w["time"]
        hidden = x @ w["input"] + time_
        for block in range(self.BLOCKS):
            normed = self._normed(hidden)
            query, keys = normed @ w[f"query{block}"], tokens @ w[f"key{block}"]
            scores = np.einsum("bd,bmd->bm", query, keys, optimize=True) / np.float32(np.sqrt(self.width))
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            mixed = np.einsum("bm,bmd->bd", scores, tokens @ w[f"value{block}"], optimize=True)
            hidden = hidden + mixed @ w[f"mixed{block}"]
            value, gate = np.split(self._normed(hidden) @ w[f"expand{block}"], 2, axis=1)
            gate = gate / (1 + np.exp(np.float32(-1.702) * gate))  # GELU by its sigmoid approximation
            hidden = hidden + (value * gate) @ w[f"contract{block}"]
        x0 = self._normed(hidden) @ w["output"]
        return 0.5 * x + 0.5 * x0 + 0.1 * self._rng.standard_normal(x.shape, dtype=np.float32)

    def cells_per_second(self, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Cells that 1,000 steps would take a second for, from the median of a few steps."""
        x = self._rng.standard_normal((batch, self.width), dtype=np.float32)
        tokens = self._rng.standard_normal((batch, self.TOKENS, self.TOKEN), dtype=np.float32)
        return batch / (median(time_calls(lambda: self.step(x, tokens, 500), seconds)) * self.STEPS)

    @staticmethod
    def _normed(hidden: np.ndarray) -> np.ndarray:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))


def gemm_gflops(products: Sequence[tuple[int, int]], seconds: float, batch: int = BATCH_SIZE) -> float:
    """Rate of the products alone, each [batch x k] by [k x n], into memory that is there."""
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


def compare_in_own_process(
    products: Sequence[tuple[int, int]], genes: int, threads: int, seconds: float
) -> dict[str, float]:
    given = {"products": list(products), "genes": genes, "seconds": seconds, "reference": threads == 1}
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = run_python("from causcell.bench.reference_design import compare; compare()", json.dumps(given), limits)
    return json.loads(done)


def compare() -> None:
    given = json.load(sys.stdin)
    figures = {"gemm_gflops": gemm_gflops(given["products"], given["seconds"])}
    if given["reference"]:
        figures["reference_cells_per_second"] = ReferenceDesign(given["genes"]).cells_per_second(given["seconds"])
    print(json.dumps(figures))
