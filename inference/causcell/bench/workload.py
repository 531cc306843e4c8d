"""What is timed: batches of a model through abduction, intervention, noise and network."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from causcell._internal.prefetch import map_ordered
from causcell.bench.reference_design import compare_in_own_process
from causcell.bench.timing import BATCH_SIZE, MIN_REPEATS, count_operations, median, time_calls
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.model import abduct
from causcell.diffusion.solvers import Solver
from causcell.engine.protocol import Engine
from causcell.generator import Generator
from causcell.randomness import CellNoise, Purpose, cell_keys, normals, uniforms
from causcell.repository.manifest import Manifest
from causcell.repository.reference_cells import ReferenceCells


class _TimedEngine:
    """An engine that adds up the time of its runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.manifest: Manifest = engine.manifest
        self.reference: ReferenceCells = engine.reference
        self.description = engine.description
        self.concurrency = engine.concurrency
        self.seconds = 0.0

    def run(
        self, graph: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        found = self._engine.run(graph, inputs, outputs)
        self.seconds += time.perf_counter() - started
        return found

    def close(self) -> None:
        self._engine.close()


class Workload:
    """Counterfactuals of the reference cells: each batch is set to one label of the first concept."""

    def __init__(self, generator: Generator) -> None:
        self.engine = _TimedEngine(generator.engine)
        self.generator = Generator(self.engine)
        self.manifest = generator.manifest
        concept = self.manifest.concepts[0]
        (self.intervention,) = plan_interventions(generator.schema, {concept.name: concept.labels[0]})
        self.network = "decoder" if "decoder" in self.manifest.graphs else "sampler"

    def cells(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Posterior means of exogenous embeddings, labels and keys of cells."""
        reference = self.engine.reference
        rows = np.resize(np.arange(len(reference.exogenous)), count)
        keys = cell_keys(0, np.array([f"cell {i}" for i in range(count)], dtype=object))
        return reference.exogenous[rows], reference.labels[rows], keys

    def intervened(self, cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        mean, labels, keys = cells
        exogenous = abduct((mean, np.zeros_like(mean)), keys)  # any variance takes the same time
        graph = self.generator.scm
        endogenous = graph.factual(exogenous)["endogenous"]
        return graph.intervene(
            self.intervention, exogenous=exogenous, endogenous=endogenous, labels=labels, keys=keys
        ).endogenous

    def decoded(self, endogenous: np.ndarray, keys: np.ndarray, solver: Solver) -> np.ndarray:
        return self.generator.decode(endogenous, CellNoise(keys, self.manifest.dimensions.genes), solver)

    def solver(self, preset: str) -> Solver:
        return self.manifest.presets[preset].solver.build(self.manifest.schedule)

    def latency(self, preset: str, batch: int, seconds: float) -> dict[str, float]:
        """Percentiles of one batch's time, and cells per second by the median."""
        cells, solver = self.cells(batch), self.solver(preset)
        times = time_calls(lambda: self.decoded(self.intervened(cells), cells[2], solver), seconds)
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        return {
            "p50_ms": round(p50 * 1e3, 3),
            "p95_ms": round(p95 * 1e3, 3),
            "p99_ms": round(p99 * 1e3, 3),
            "cells_per_second": round(batch / p50, 1),
            "repeats": len(times),
        }

    def latencies(
        self, preset: str, batches: Sequence[int], seconds: float, where: str, report: Callable[[str], None]
    ) -> dict[str, dict[str, float]]:
        """`latency` by batch size, told of when it is done."""
        rows = {str(batch): self.latency(preset, batch, seconds) for batch in batches}
        rates = (f"{row['cells_per_second']:,.0f} at {batch}" for batch, row in rows.items())
        report(f"{preset}, {where}: cells/s {', '.join(rates)}")
        return rows

    def rate(self, preset: str, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Cells per second with as many batches at once as the engine gains from."""
        cells, solver = self.cells(batch), self.solver(preset)

        def generate(_: int) -> None:
            self.decoded(self.intervened(cells), cells[2], solver)

        generate(0)
        started = time.perf_counter()
        for done, _ in enumerate(map_ordered(generate, itertools.count(), self.engine.concurrency), start=1):
            elapsed = time.perf_counter() - started
            if elapsed > seconds and done >= MIN_REPEATS:
                break
        return round(batch * done / elapsed, 1)

    def split(self, preset: str, seconds: float) -> dict[str, float]:
        """Milliseconds of each part of a batch, medians."""
        cells, solver = self.cells(BATCH_SIZE), self.solver(preset)
        keys, genes = cells[2], self.manifest.dimensions.genes
        endogenous = self.intervened(cells)
        expression = self.decoded(endogenous, keys, solver)

        def network() -> float:
            before = self.engine.seconds
            self.decoded(endogenous, keys, solver)
            return self.engine.seconds - before

        def noise() -> None:
            if solver.draw:
                for step in range(solver.steps):
                    uniforms(keys, genes, Purpose.POSTERIOR, step=step)
            for step in range(int(solver.from_noise) + np.count_nonzero(solver.table[:, 4])):
                normals(keys, genes, Purpose.STEP_NOISE, step=step)

        whole = median(time_calls(lambda: self.decoded(endogenous, keys, solver), seconds))
        parts = {
            "encode": median(time_calls(lambda: self.engine.run("encoder_scm", {"expression": expression}), seconds)),
            "intervene": median(time_calls(lambda: self.intervened(cells), seconds)),
            "noise": median(time_calls(noise, seconds)),
            "network": median([network() for _ in range(max(MIN_REPEATS, int(seconds / whole)))]),
        }
        parts["draw"] = max(whole - parts["noise"] - parts["network"], 0.0)
        return {name: round(value * 1e3, 3) for name, value in parts.items()}

    def compared(self, threads: int, seconds: float) -> dict[str, float]:
        """Rates of the default graph and of its matrix products alone; at one thread of the reference design too."""
        graph = self.manifest.graphs[self.network]
        endogenous = self.intervened(self.cells(BATCH_SIZE))
        shape = (BATCH_SIZE, self.manifest.dimensions.genes)
        if self.network == "decoder":
            given = {"uniforms": np.random.default_rng(0).random(shape, dtype=np.float32)}
        else:
            row = np.array([self.manifest.schedule.timesteps - 1, 0, 1, 0, 0], dtype=np.float32)
            given = {"noise": np.zeros(shape, dtype=np.float32), "solver": np.tile(row, (BATCH_SIZE, 1, 1))}
        inputs = {"endogenous": endogenous, **given}
        elapsed = median(time_calls(lambda: self.engine.run(self.network, inputs), seconds))
        rate = count_operations(graph.products, BATCH_SIZE) / elapsed / 1e9
        alone = compare_in_own_process(graph.products, self.manifest.dimensions.genes, threads, seconds)
        return {"network_gflops": rate, "ratio_to_gemm": rate / alone["gemm_gflops"], **alone}

    def keyed_numbers(self, seconds: float) -> dict[str, float]:
        """Microseconds a cell for one number a gene."""
        keys, genes = self.cells(BATCH_SIZE)[2], self.manifest.dimensions.genes
        figures = {}
        for name, kind in (("uniforms", uniforms), ("normals", normals)):
            elapsed = median(time_calls(functools.partial(kind, keys, genes, Purpose.POSTERIOR), seconds))
            figures[f"{name}_microseconds_per_cell"] = round(elapsed / BATCH_SIZE * 1e6, 3)
        return figures
