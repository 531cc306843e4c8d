"""The work that is timed: batches of cells through abduction, intervention, noise and network."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from causcell._internal.prefetch import map_ordered
from causcell.bench.metered_engine import MeteredEngine
from causcell.bench.reference_design import measure_yardsticks
from causcell.bench.timing import BATCH_SIZE, MIN_REPEATS, count_operations, median, time_calls
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.model import abduct
from causcell.diffusion.solvers import Solver
from causcell.generator import Generator
from causcell.randomness import CellNoise, Purpose, cell_keys, normals, uniforms
from causcell.repository.manifest import SLAB


class WorkloadCells(NamedTuple):
    """A batch of cells to generate from.

    Attributes
    ----------
    exogenous
        Posterior means of exogenous embeddings, float32 [B x M x k].
    labels
        Codes of the labels, int32 [B x m].
    keys
        Keys of the cells' random numbers, uint64 [B x 2].
    """

    exogenous: np.ndarray
    labels: np.ndarray
    keys: np.ndarray


class Latency(TypedDict):
    """Percentiles of one batch's time, and the rate by the median.

    A percentile of few repeats is near their maximum: ``repeats`` says how many there were.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    cells_per_second: float
    repeats: int


class Workload:
    """Generate counterfactuals of the reference cells: each batch is set to one label of the first concept.

    Parameters
    ----------
    generator
        Model to measure.

    Attributes
    ----------
    engine
        The generator's engine, with time and bytes of its evaluations.
    network
        Name of the graph whose arithmetic is measured, the one that draws here: ``slab``, ``decoder``, or ``sampler``
        where there is neither.

    Examples
    --------
    >>> from causcell import Generator
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     latency = Workload(generator).latency("draw", batch=16, seconds=0.01)
    >>> latency["repeats"] >= 3
    True
    """

    def __init__(self, generator: Generator) -> None:
        self.engine = MeteredEngine(generator.engine)
        self.generator = Generator(self.engine)
        self.manifest = generator.manifest
        concept = self.manifest.concepts[0]
        (self.intervention,) = plan_interventions(generator.schema, {concept.name: concept.labels[0]})
        drawing = ([SLAB] if self.engine.at_hand else []) + ["decoder", "sampler"]
        self.network = next(name for name in drawing if name in self.manifest.graphs)

    def take_cells(self, count: int) -> WorkloadCells:
        """Return so many cells, the reference cells over and over, each with a name of its own."""
        reference = self.engine.reference
        rows = np.resize(np.arange(len(reference.exogenous)), count)
        keys = cell_keys(0, np.array([f"cell {i}" for i in range(count)], dtype=object))
        return WorkloadCells(reference.exogenous[rows], reference.labels[rows], keys)

    def build_solver(self, preset: str) -> Solver:
        """Build the solver of a preset."""
        return self.manifest.presets[preset].solver.build(self.manifest.schedule)

    def intervene(self, cells: WorkloadCells) -> np.ndarray:
        """Abduct and intervene: endogenous embeddings, float32 [B x M x k]."""
        mean, labels, keys = cells
        graph = self.generator.model.scm
        exogenous = graph.inform(abduct((mean, np.zeros_like(mean)), keys), labels)  # any variance takes the same time
        endogenous = graph.factual(exogenous)["endogenous"]
        return graph.intervene(
            self.intervention, exogenous=exogenous, endogenous=endogenous, labels=labels, keys=keys
        ).endogenous

    def decode(self, endogenous: np.ndarray, keys: np.ndarray, solver: Solver) -> np.ndarray:
        """Sample expression, float32 [B x G], log scale, from endogenous embeddings [B x M x k] and keys [B x 2]."""
        return self.generator.model.decode(endogenous, CellNoise(keys, self.manifest.dimensions.genes), solver)

    def generate(self, cells: WorkloadCells, solver: Solver) -> np.ndarray:
        """Make one batch of counterfactuals: `intervene`, then `decode`; float32 [B x G], log scale."""
        return self.decode(self.intervene(cells), cells.keys, solver)

    def latency(self, preset: str, batch: int, seconds: float, *, min_repeats: int = MIN_REPEATS) -> Latency:
        """Measure the time of one batch.

        Parameters
        ----------
        preset
            Name of the preset.
        batch
            Cells in the batch.
        seconds
            Time for the measurement.
        min_repeats
            Fewest batches; see `causcell.bench.timing.time_calls`.
        """
        cells, solver = self.take_cells(batch), self.build_solver(preset)
        times = time_calls(lambda: self.generate(cells, solver), seconds, min_repeats=min_repeats)
        p50, p95, p99 = map(float, np.percentile(times, [50, 95, 99]))
        return {
            "p50_ms": round(p50 * 1e3, 3),
            "p95_ms": round(p95 * 1e3, 3),
            "p99_ms": round(p99 * 1e3, 3),
            "cells_per_second": round(batch / p50, 1),
            "repeats": len(times),
        }

    def latency_table(
        self, preset: str, batches: Sequence[int], seconds: float, where: str, report: Callable[[str], None]
    ) -> dict[str, Latency]:
        """Measure `latency` for each batch size, and report a line on all of them, which says ``where``."""
        rows = {str(batch): self.latency(preset, batch, seconds) for batch in batches}
        rates = (f"{row['cells_per_second']:,.0f} at {batch}" for batch, row in rows.items())
        report(f"{preset}, {where}: cells/s {', '.join(rates)}")
        return rows

    def rate(self, preset: str, seconds: float, batch: int = BATCH_SIZE) -> float:
        """Measure cells per second with as many batches at once as the engine gains from."""
        cells, solver = self.take_cells(batch), self.build_solver(preset)

        def generate(_: int) -> None:
            self.generate(cells, solver)

        generate(0)
        started = time.perf_counter()
        for done, _ in enumerate(map_ordered(generate, itertools.count(), self.engine.concurrency), start=1):
            elapsed = time.perf_counter() - started
            if elapsed > seconds and done >= MIN_REPEATS:
                break
        return round(batch * done / elapsed, 1)

    def split(self, preset: str, seconds: float) -> dict[str, float]:
        """Measure each part of a batch, median milliseconds: encode, intervene, noise, network, draw (the rest)."""
        cells, solver = self.take_cells(BATCH_SIZE), self.build_solver(preset)
        keys, genes = cells.keys, self.manifest.dimensions.genes
        endogenous = self.intervene(cells)
        expression = self.decode(endogenous, keys, solver)

        def time_network() -> float:
            before = self.engine.seconds
            self.decode(endogenous, keys, solver)
            return self.engine.seconds - before

        def make_noise() -> None:
            if solver.draw:
                for step in range(solver.steps):
                    uniforms(keys, genes, Purpose.POSTERIOR, step=step)
            for step in range(int(solver.from_noise) + np.count_nonzero(solver.table[:, 4])):
                normals(keys, genes, Purpose.STEP_NOISE, step=step)

        whole = median(time_calls(lambda: self.decode(endogenous, keys, solver), seconds))
        parts = {
            "encode": median(time_calls(lambda: self.engine.run("encoder_scm", {"expression": expression}), seconds)),
            "intervene": median(time_calls(lambda: self.intervene(cells), seconds)),
            "noise": median(time_calls(make_noise, seconds)),
            "network": median([time_network() for _ in range(max(MIN_REPEATS, int(seconds / whole)))]),
        }
        parts["draw"] = max(whole - parts["noise"] - parts["network"], 0.0)
        return {name: round(value * 1e3, 3) for name, value in parts.items()}

    def compare_with_gemm(self, threads: int, seconds: float) -> dict[str, float]:
        """Measure the network's arithmetic beside its matrix products alone, and at one thread the reference design.

        Parameters
        ----------
        threads
            Threads that the engine evaluates a batch with, which numpy's BLAS gets too.
        seconds
            Time for each figure.

        Returns
        -------
        ``network_gflops``, ``gemm_gflops``, ``ratio_to_gemm``; at one thread ``reference_cells_per_second``.
        """
        graph = self.manifest.graphs[self.network]
        endogenous = self.intervene(self.take_cells(BATCH_SIZE))
        shape = (BATCH_SIZE, self.manifest.dimensions.genes)
        given: dict[str, np.ndarray] = {}
        if self.network == "decoder":
            given = {"uniforms": np.random.default_rng(0).random(shape, dtype=np.float32)}
        elif self.network == "sampler":
            row = np.array([self.manifest.schedule.timesteps - 1, 0, 1, 0, 0], dtype=np.float32)
            given = {"noise": np.zeros(shape, dtype=np.float32), "solver": np.tile(row, (BATCH_SIZE, 1, 1))}
        inputs = {"endogenous": endogenous, **given}
        elapsed = median(time_calls(lambda: self.engine.run(self.network, inputs), seconds))
        rate = count_operations(graph.products, BATCH_SIZE) / elapsed / 1e9
        yardsticks = measure_yardsticks(graph.products, self.manifest.dimensions.genes, threads, seconds)
        return {"network_gflops": rate, "ratio_to_gemm": rate / yardsticks["gemm_gflops"], **yardsticks}

    def time_keyed_numbers(self, seconds: float) -> dict[str, float]:
        """Measure the microseconds that one keyed number a panel gene takes, for each cell."""
        keys, genes = self.take_cells(BATCH_SIZE).keys, self.manifest.dimensions.genes
        figures = {}
        for name, kind in (("uniforms", uniforms), ("normals", normals)):
            elapsed = median(time_calls(functools.partial(kind, keys, genes, Purpose.POSTERIOR), seconds))
            figures[f"{name}_microseconds_per_cell"] = round(elapsed / BATCH_SIZE * 1e6, 3)
        return figures
