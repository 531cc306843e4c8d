"""Rates of the decoder and the sampler alone, by batch size and by what runs them; `gpu.py` is the program."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causcell.bench.timing import median
from causcell.diffusion.solvers import dpmpp
from causcell.engine.open import open_engine
from causcell.engine.providers import session_provider
from causcell.engine.runtime import load_cuda_libraries, load_runtime
from causcell.repository.folder import open_repository
from causcell_export.graphs import graphs, lowered_graphs
from causcell_training import Run

STEPS = 10
WORK = {"draw": "decoder", f"{STEPS} steps": "sampler"}
LONGEST = 2.0
"""Seconds of a call, as foreseen from the batch before, that is not made."""
Row = dict[str, Any]


def measure(call: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call, after one to warm up; a slow call is timed twice."""
    began = time.perf_counter()
    call()
    first, times = time.perf_counter() - began, []
    end = time.perf_counter() + seconds
    while len(times) < (2 if first > seconds else 3) or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


def measure_batches(
    prepare: Callable[[int], Callable[[], object]], batches: list[int], seconds: float
) -> Iterator[tuple[int, float]]:
    """Time calls that are prepared for each batch size, until one would take longer than `LONGEST`."""
    before, elapsed = 1, 0.0
    for batch in batches:
        if elapsed * batch / before > LONGEST:
            return
        before, elapsed = batch, measure(prepare(batch), seconds)
        yield batch, elapsed


def graph_rates(
    built: Mapping[tuple[int, str], Path], provider: str, batches: list[int], seconds: float
) -> Iterator[Row]:
    """Measure the decoder and the sampler every way, by batch size; each way's memory is freed before the next."""
    device = "cuda" if provider == "cuda" else "cpu"
    for (genes, precision), folder in built.items():
        ways: dict[str, Callable[[str], contextlib.AbstractContextManager[Any]]] = {
            f"engine, {provider}": lambda graph, at=folder / "models": engine_call(at, provider, graph),
            f"bound, {provider}": lambda graph, at=folder / "models": bound_call(at, provider, graph, {}),
            f"torch, {device}": lambda graph, at=folder / "run", of=precision: torch_call(at, of, device, graph),
        }
        if precision == "fp32" and provider == "cuda":
            ways["engine, cpu"] = lambda graph, at=folder / "models": engine_call(at, "cpu", graph)
            ways["bound, cuda, TF32"] = lambda graph, at=folder / "models": bound_call(
                at, provider, graph, {"use_tf32": 1}
            )
        for (work, graph), way in itertools.product(WORK.items(), ways):
            row: Row = {"genes": genes, "precision": precision, "work": work, "way": way, "cells_per_second": {}}
            try:
                with ways[way](graph) as prepare:
                    for batch, elapsed in measure_batches(
                        lambda batch, prepare=prepare, of=(folder / "models", graph): prepare(
                            network_inputs(*of, batch)
                        ),
                        batches,
                        seconds,
                    ):
                        row["cells_per_second"][str(batch)] = round(batch / elapsed, 1)
            except Exception as error:  # out of memory, say: the other figures count
                row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(row, flush=True)
            yield row


def network_inputs(models: Path, graph: str, batch: int) -> dict[str, np.ndarray]:
    """Inputs of the decoder or the sampler: reference cells over and over, random numbers, ten steps."""
    repository = open_repository(models)
    dimensions = repository.manifest.dimensions
    shape = (batch, dimensions.concepts + 1, dimensions.embedding)
    endogenous = np.resize(repository.reference.exogenous, shape)
    rng, rows = np.random.default_rng(0), (min(batch, 1024), dimensions.genes)
    if graph == "decoder":
        uniforms = np.clip(rng.random(rows, dtype=np.float32), 1e-7, 1)
        return {"endogenous": endogenous, "uniforms": np.resize(uniforms, (batch, dimensions.genes))}
    table = dpmpp(repository.manifest.schedule, STEPS).table.astype(np.float32)
    noise = np.resize(rng.standard_normal(rows, dtype=np.float32), (batch, dimensions.genes))
    return {"endogenous": endogenous, "noise": noise, "solver": np.tile(table, (batch, 1, 1))}


@contextlib.contextmanager
def engine_call(models: Path, provider: str, graph: str) -> Iterator[Callable[..., Callable[[], object]]]:
    """The engine that generation runs: arrays of the host in, an array of the host out."""
    with contextlib.closing(open_engine(models, provider=provider)) as engine:
        yield lambda inputs: lambda: engine.run(graph, inputs, ("expression",))


@contextlib.contextmanager
def bound_call(
    models: Path, provider: str, graph: str, options: dict[str, Any]
) -> Iterator[Callable[..., Callable[[], object]]]:
    """ONNX Runtime with inputs that are on the device already, and an output that stays there."""
    runtime = load_runtime()
    name, own = session_provider(provider)
    device = "cpu"
    if provider == "cuda":
        load_cuda_libraries(runtime)
        device = "cuda"
    session = runtime.InferenceSession(models / graph / "1" / "model.onnx", providers=[(name, own | options)])

    def prepare(inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        binding = session.io_binding()
        for key, array in inputs.items():
            binding.bind_ortvalue_input(key, runtime.OrtValue.ortvalue_from_numpy(array, device, 0))
        binding.bind_output("expression", device)

        def call() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call

    yield prepare


@contextlib.contextmanager
def torch_call(run: Path, precision: str, device: str, graph: str) -> Iterator[Callable[..., Callable[[], object]]]:
    """The same module in torch, its inputs on the device."""
    model = Run.load(run).model
    module = (graphs(model) if precision == "fp32" else lowered_graphs(model))[graph].module.to(device)

    def prepare(inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        tensors = [torch.from_numpy(array).to(device) for array in inputs.values()]

        def call() -> None:
            with torch.inference_mode():
                module(*tensors)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    yield prepare
