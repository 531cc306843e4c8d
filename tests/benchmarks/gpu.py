"""Rates and agreement on a GPU, beside the CPU's: graphs of exported models by batch size, whole batches, training.

    python tests/benchmarks/gpu.py --out gpu.json            (also writes gpu.md; --provider cpu where there is no GPU)

Models have 2,000 and 20,000 genes and the default networks, trained for one epoch on 256 simulated cells: speed does
not depend on weights. Parts, each of which ``--part`` chooses:

- ``models``: nothing but the models, to be used again from ``--work``.
- ``agreement``: every graph's values on the provider against those on the CPU, for the same inputs: the largest
  difference relative to 1 + |value|, and the number of values beyond the contract's limit (flips, for draws).
- ``graphs``: the decoder (one draw) and the sampler (ten steps of DPM-Solver++) alone, as cells per second: the engine
  (arrays of the host in and out, as generation runs it) on the provider and on the CPU; ONNX Runtime on buffers bound
  on the device, also with TF32; the same modules in torch on the device.
- ``batches``: whole batches of counterfactuals through the client (`causcell.bench.workload.Workload`): abduction,
  intervention, keyed noise, network; with the milliseconds that each takes of a batch of 256.
- ``atlas``: an atlas of draws from a file of cells to a store, by worker processes of one compute thread: rows per
  second of the whole run, and from the time on when every worker has written a shard.
- ``training``: a training step's time and cells per second, and the held-out error after some epochs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as lightning
import numpy as np
import onnxruntime
import torch
from gpu_graphs import Row, graph_rates, measure_batches
from scipy import sparse

from causcell._internal.cpus import available_cpus
from causcell.atlas.events import AtlasEvent, ShardCommitted
from causcell.atlas.executors import Processes
from causcell.bench.timing import describe_hardware, list_versions, median
from causcell.bench.workload import Workload
from causcell.engine.open import open_engine
from causcell.engine.protocol import Engine
from causcell.generator import Generator
from causcell_export import export
from causcell_export.graphs import Graph, example_inputs, graphs, lowered_graphs
from causcell_training import Run, fit
from causcell_training.config import load_config

PARTS = ("models", "agreement", "graphs", "batches", "atlas", "training")
PRECISIONS = ("fp32", "fp16")
CELLS = 256


def main() -> None:
    """Measure the parts, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .json")
    parser.add_argument("--provider", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--genes", type=int, action="append", help="default: 2000 and 20000")
    parser.add_argument("--batch", type=int, action="append", help="default: 64, 256, 1024, 4096, 16384")
    parser.add_argument("--workers", type=int, action="append", help="of an atlas, default: 1, 2, 4, 8")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--work", type=Path, help="folder to keep the models in, and to find them in if they are there")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each figure")
    parser.add_argument("--epochs", type=int, default=4, help="of each training that is measured")
    parser.add_argument("--training-cells", type=int, default=2048)
    arguments = parser.parse_args()
    parts, genes = arguments.part or PARTS, arguments.genes or [2000, 20_000]
    batches = arguments.batch or [64, 256, 1024, 4096, 16_384]
    results: dict[str, Any] = {"hardware": hardware(), "versions": versions(), "provider": arguments.provider}
    began = time.perf_counter()

    def keep(name: str, value: object) -> None:
        results[name] = value
        results["seconds"] = round(time.perf_counter() - began, 1)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")  # a machine may be gone before the end
        arguments.out.with_suffix(".md").write_text(tables(results))
        print(f"{name}: done after {results['seconds']} s", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        built = build_models(genes, work) if set(parts) - {"training"} else {}
        keep("models", [])
        if "agreement" in parts:
            keep("agreement", list(agreement(built, arguments.provider)))
        if "graphs" in parts:
            keep("graphs", list(graph_rates(built, arguments.provider, batches, arguments.seconds)))
        if "batches" in parts:
            keep("batches", list(batch_rates(built, arguments.provider, batches, arguments.seconds)))
        if "atlas" in parts:
            workers = arguments.workers or [1, 2, 4, 8]
            keep("atlas", list(atlas_rates(built, arguments.provider, workers, Path(scratch))))
        if "training" in parts:
            on = "gpu" if arguments.provider == "cuda" else "cpu"
            keep("training", list(training(genes, on, arguments.training_cells, arguments.epochs, Path(scratch))))
    print(tables(results))


def hardware() -> Row:
    """Name the processor, and the GPU with its driver and memory."""
    found = describe_hardware() | {"gpu": None}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return found


def versions() -> dict[str, str]:
    """Versions of what computes; CUDA's and cuDNN's are those that torch has."""
    found = list_versions() | {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    if torch.cuda.is_available():
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found


# -- models ------------------------------------------------------------------------------------------------------------


def build_models(genes: list[int], work: Path) -> dict[tuple[int, str], Path]:
    """Train a moment and export, each size and precision in a process of its own; folders of ``run`` and ``models``."""
    folders = {each: work / "{}_{}".format(*each) for each in itertools.product(genes, PRECISIONS)}
    missing = {each: folder for each, folder in folders.items() if not (folder / "models").exists()}
    if missing:
        with ProcessPoolExecutor(min(len(missing), available_cpus()), get_context("spawn")) as pool:
            list(pool.map(build_model, missing, missing.values()))
    return folders


def build_model(wanted: tuple[int, str], folder: Path) -> None:
    """Write ``run`` and ``models`` into a folder; torch is kept to few threads beside the others."""
    genes, precision = wanted
    torch.set_num_threads(max(1, available_cpus() // 4))
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted one left
    folder.mkdir(parents=True)
    export(train(genes, CELLS, folder / "run", epochs=1, accelerator="cpu"), folder / "models", precision=precision)


@cache
def simulated_cells(genes: int, cells: int) -> anndata.AnnData:
    """Poisson counts of two concepts' labels."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(size, size=cells) for size in (2, 3)], axis=1)
    shifts = [rng.normal(0, 0.5, size=(size, genes)) for size in (2, 3)]
    rates = np.exp(rng.normal(-2, 1.2, size=genes) + shifts[0][codes[:, 0]] + shifts[1][codes[:, 1]])
    data = anndata.AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
    data.obs = data.obs.assign(treatment=codes[:, 0].astype(str), cell_type=codes[:, 1].astype(str))
    return data


def train(genes: int, cells: int, out: Path, callbacks: list[lightning.Callback] | None = None, **settings: Any) -> Run:
    """Train the default networks on simulated cells; ``settings`` are those of ``optimisation``."""
    data = simulated_cells(genes, cells)
    concepts = {"concept": ("treatment", "cell_type"), "edge": ("treatment:cell_type",), "genes": "all"}
    config = load_config(overrides=concepts | {f"optimisation.{name}": value for name, value in settings.items()})
    return fit(data, out, config=config, callbacks=callbacks or [])


# -- whole batches -----------------------------------------------------------------------------------------------------


def batch_rates(
    built: Mapping[tuple[int, str], Path], provider: str, batches: list[int], seconds: float
) -> Iterator[Row]:
    """Measure whole batches of counterfactuals through the client, on the provider and on the CPU."""
    for (genes, precision), folder in built.items():
        for on in dict.fromkeys((provider, "cpu")) if precision == "fp32" else (provider,):
            with Generator.open(folder / "models", provider=on) as generator:
                workload = Workload(generator)
                for preset in ("draw", "balanced"):
                    row: Row = {"genes": genes, "precision": precision, "preset": preset, "provider": on}
                    row["cells_per_second"] = {}
                    solver = workload.build_solver(preset)
                    for batch, elapsed in measure_batches(
                        lambda batch, work=workload, solver=solver: partial(
                            work.generate, work.take_cells(batch), solver
                        ),
                        batches,
                        seconds,
                    ):
                        row["cells_per_second"][str(batch)] = round(batch / elapsed, 1)
                    row["split_ms"] = workload.split(preset, seconds)
                    print(row, flush=True)
                    yield row


# -- atlases -----------------------------------------------------------------------------------------------------------

ATLAS_CELLS, ATLAS_DRAWS = 2048, 16


def atlas_rates(
    built: Mapping[tuple[int, str], Path], provider: str, workers: list[int], scratch: Path
) -> Iterator[Row]:
    """Write atlases of draws with the fp32 models, of as many rows a worker whatever their number."""
    for (genes, _), folder in ((each, at) for each, at in built.items() if each[1] == "fp32"):
        for on, count in itertools.product(dict.fromkeys((provider, "cpu")), workers):
            cells, place = scratch / f"{genes}_{count}.h5ad", scratch / f"{genes}_{on}_{count}.zarr"
            if not cells.exists():
                simulated_cells(genes, ATLAS_CELLS * count).write_h5ad(cells)
            commits: list[tuple[float, int]] = []

            def note(event: AtlasEvent, commits: list[tuple[float, int]] = commits) -> None:
                if isinstance(event, ShardCommitted):
                    commits.append((time.perf_counter(), event.record.rows))

            with Generator.open(folder / "models", provider=on, threads=1) as generator:
                began = time.perf_counter()
                generator.write_atlas(
                    cells, place, {"treatment": "1"}, draws=ATLAS_DRAWS, preset="draw", shard_size="32MB",
                    executor=Processes(count), on_event=note,
                )  # fmt: skip
            whole, rest = time.perf_counter() - began, commits[count:]
            rows = sum(rows for _, rows in commits)
            row: Row = {"genes": genes, "on": on, "workers": count, "rows": rows, "rows/s": round(rows / whole)}
            row["rows/s once begun"] = round(sum(rows for _, rows in rest) / (rest[-1][0] - commits[count - 1][0]))
            shutil.rmtree(place)
            print(row, flush=True)
            yield row


# -- agreement ---------------------------------------------------------------------------------------------------------


def agreement(built: Mapping[tuple[int, str], Path], provider: str, batch: int = 1024) -> Iterator[Row]:
    """Hold every graph on the provider against the same file on the CPU, and an fp16 file against the fp32 one."""
    for (genes, precision), folder in built.items():
        run = Run.load(folder / "run")
        inputs = example_inputs(run.model, run.held_out().X.toarray(), batch)
        with (
            contextlib.closing(open_engine(folder / "models", provider=provider)) as engine,
            contextlib.closing(open_engine(folder / "models")) as reference,
        ):
            made: dict[str, Graph] = (graphs if precision == "fp32" else lowered_graphs)(run.model)
            for name, graph in made.items():
                row: Row = {"genes": genes, "precision": precision, "graph": name, "batch": batch}
                row |= compare(engine, reference, name, inputs[name], graph.tolerance.limit)
                row["allowed beyond"] = graph.tolerance.beyond
                print(row, flush=True)
                yield row


def compare(engine: Engine, reference: Engine, graph: str, inputs: dict[str, np.ndarray], limit: float) -> Row:
    """Difference of two engines' float32 outputs, relative to 1 + |value|."""
    found, expected = engine.run(graph, inputs), reference.run(graph, inputs)
    names = [name for name, array in expected.items() if array.dtype == np.float32]
    difference = np.concatenate(
        [(np.abs(found[name] - expected[name]) / (1 + np.abs(expected[name]))).ravel() for name in names]
    )
    beyond = difference > limit
    return {
        "largest within": float(difference[~beyond].max(initial=0)),
        "mean": float(difference.mean()),
        "limit": limit,
        "beyond": int(beyond.sum()),
        "values": difference.size,
        "bit for bit": bool((difference == 0).all()),
    }


# -- training ----------------------------------------------------------------------------------------------------------


class StepClock(lightning.Callback):
    """Times of the ends of steps, by epoch."""

    def __init__(self) -> None:
        self.ends: dict[int, list[float]] = {}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Note the time, once the device has finished."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.setdefault(trainer.current_epoch, []).append(time.perf_counter())

    def step_seconds(self) -> float:
        """Median time of a step, the first epoch left out."""
        return median([t for ends in list(self.ends.values())[1:] for t in np.diff(ends)])


def training(genes: list[int], accelerator: str, cells: int, epochs: int, scratch: Path) -> Iterator[Row]:
    """Train on the accelerator in both precisions and on the CPU, at two batch sizes; few genes on one thread too."""
    everything = available_cpus()
    for count in genes:
        places = [("cpu", "float32", everything, 128), ("cpu", "float32", everything, 512)]
        places += [("cpu", "float32", 1, 128)] if count < 5000 else []
        if accelerator == "gpu":
            on_gpu = [("auto", 128), ("float32", 128), ("auto", 512)]
            places = [*(("gpu", precision, everything, size) for precision, size in on_gpu), *places]
        for place, precision, threads, size in places:
            clock, out = StepClock(), scratch / f"{count}_{size}_{place}_{precision}_{threads}"
            torch.set_num_threads(threads)
            settings = {"accelerator": place, "precision": precision, "batch_size": size, "epochs": epochs}
            run = train(count, cells, out, [clock], **settings)
            row: Row = {"genes": count, "on": place, "precision": precision, "threads": threads, "batch": size}
            row["step ms"] = round(clock.step_seconds() * 1e3, 2)
            row["cells/s"] = round(size / clock.step_seconds(), 1)
            row |= {"device": run.provenance["device"], "held-out MSE": run.provenance["best_held_out_mse"]}
            print(row, flush=True)
            yield row


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(results: Row) -> str:
    """All parts measured so far, in Markdown."""
    machine = results["hardware"]
    where = f"{machine['gpu'] or 'no GPU'}; {machine['cpu']}, {machine['cpus']} CPUs; "
    text = [where + ", ".join(f"{name} {version}" for name, version in results["versions"].items())]
    for part in PARTS:
        rows = [flat(row) for row in results.get(part, [])]
        if rows:
            columns = list(dict.fromkeys(name for row in rows for name in row))
            lines = [columns, ["---"] * len(columns), *([show(row.get(name, "")) for name in columns] for row in rows)]
            text += [f"## {part.capitalize()}", "".join(f"| {' | '.join(line)} |\n" for line in lines)]
    return "\n\n".join(text) + "\n"


def flat(row: Row) -> Row:
    """A row with its figures by batch size as columns of their own."""
    figures = {name: value for name, value in row.items() if not isinstance(value, dict)}
    nested = [value for value in row.values() if isinstance(value, dict)]
    return figures | {name: value for each in nested for name, value in each.items()}


def show(value: object) -> str:
    """Format a cell of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
