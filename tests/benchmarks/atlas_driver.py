"""The driver of a large atlas, by simulation: what planning, a worker's start, a restart and Dask take before any row.

A source of many cells is written by blocks (names, labels, one value a cell), so that a plan of it is a real one;
shards are never made: their files and records are written as they would be, of a few bytes each. Each measurement runs
in a process of its own, which tells its seconds, CPU seconds and peak memory:

- ``plan``: `Generator.plan_atlas` of the source;
- ``worker``: what a worker does before its first shard: unpickle the task, open it, read the first batch;
- ``unseen``: labels that no training cell carries together, in a million rows of a shard;
- ``restart``: `write_atlas` until the executor is asked for the shards that are missing, all but 3,000 done, and the
  files of these shards;
- ``dask``: the first 2,000 of 63,000 shards of no work: until the first is back, and the most in the scheduler's hands.

    python tests/benchmarks/atlas_driver.py --folder /some/place --out results.json
    python tests/benchmarks/atlas_driver.py --folder /some/place --code /checkout/of/another/version
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "model_repository"
BLOCK = 2**20
CHUNK = 2**18
"""Values of a chunk of the source: names are read 65,536 at a time."""


def main() -> None:
    """Parse the command line and measure, or be the process that one measurement runs in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the source and the atlases")
    parser.add_argument("--cells", type=int, default=100_000_000)
    parser.add_argument("--shards", type=int, default=63_000)
    parser.add_argument("--only", nargs="*", default=list(MEASURED), choices=list(MEASURED))
    parser.add_argument("--code", type=Path, default=ROOT, help="checkout whose packages are measured")
    parser.add_argument("--out", type=Path, help="file of results (JSON)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(arguments.child, arguments)))
        return
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}",
        "cells": arguments.cells,
        "shards": arguments.shards,
    }
    print(found["machine"])
    if {"plan", "worker"} & set(arguments.only):
        write_source(source_path(arguments), arguments.cells)
    for name in arguments.only:
        found[name] = run_child(name, arguments)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def run_child(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own, with the packages of the checkout that is measured."""
    packages = [str(arguments.code / part) for part in ("inference", "training", "export")]
    words = ["--folder", arguments.folder, "--cells", arguments.cells, "--shards", arguments.shards, "--child", name]
    answer = subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, in this process."""
    found = MEASURED[name](arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**found, "peak_mb": round(peak / 1e6)}


class Timed:
    """Seconds and CPU seconds of a ``with`` block."""

    def __enter__(self) -> Timed:
        self._start, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self.figures = {
            "seconds": round(time.perf_counter() - self._start, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
        }


# -- the source --------------------------------------------------------------------------------------------------------


def source_path(arguments: argparse.Namespace) -> Path:
    """Where the source is."""
    return Path(arguments.folder) / f"source_{arguments.cells}.zarr"


def write_source(path: Path, cells: int) -> None:
    """Write a zarr store of cells of the checked-in model: names, labels and one value each; kept for the next time."""
    if path.exists():
        return
    import zarr
    from zarr.codecs import ZstdCodec

    manifest = json.loads((MODELS / "manifest.json").read_text())
    genes = manifest["genes"]["names"]
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rng = np.random.default_rng(0)
    group = zarr.open_group(partial, mode="w", zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    compressed: dict[str, Any] = {"compressors": [ZstdCodec(level=1)]}
    plain = {"encoding-type": "array", "encoding-version": "0.2.0"}
    texts = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
    frame = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
    concepts = {each["name"]: each["labels"] for each in manifest["concepts"]}
    obs = group.create_group("obs", attributes=frame | {"column-order": list(concepts)})
    var = group.create_group("var", attributes=frame | {"column-order": []})
    var.create_array("_index", shape=(len(genes),), dtype="str", attributes=texts)[:] = np.array(genes, dtype=object)
    matrix = group.create_group(
        "X", attributes={"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [cells, len(genes)]}
    )

    def create(parent: Any, name: str, dtype: str, length: int = cells) -> Any:
        chunks = (min(CHUNK, length),)
        attributes = texts if dtype == "str" else plain
        return parent.create_array(
            name, shape=(length,), dtype=dtype, chunks=chunks, attributes=attributes, **compressed
        )

    arrays = {"names": create(obs, "_index", "str"), "indptr": create(matrix, "indptr", "int64", cells + 1)}
    arrays |= {"data": create(matrix, "data", "float32"), "indices": create(matrix, "indices", "int32")}
    categorical = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
    for name, labels in concepts.items():
        column = obs.create_group(name, attributes=categorical)
        column.create_array("categories", shape=(len(labels),), dtype="str", attributes=texts)[:] = np.array(
            labels, dtype=object
        )
        arrays[name] = create(column, "codes", "int8")
    for start in range(0, cells, BLOCK):
        rows = slice(start, min(start + BLOCK, cells))
        count = rows.stop - rows.start
        arrays["names"][rows] = np.array([f"cell_{i:09d}" for i in range(rows.start, rows.stop)], dtype=object)
        arrays["data"][rows] = np.ones(count, dtype=np.float32)
        arrays["indices"][rows] = (np.arange(rows.start, rows.stop) % len(genes)).astype(np.int32)
        arrays["indptr"][rows] = np.arange(rows.start, rows.stop)
        for name, labels in concepts.items():
            arrays[name][rows] = rng.integers(len(labels), size=count).astype(np.int8)
    arrays["indptr"][cells:] = np.array([cells])
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        group.create_group(name, attributes={"encoding-type": "dict", "encoding-version": "0.1.0"})
    partial.rename(path)


# -- measurements ------------------------------------------------------------------------------------------------------


def open_generator() -> Any:
    """Open the checked-in model, one thread."""
    from causcell import Generator

    return Generator.open(MODELS, threads=1)


def grid_options() -> dict[str, Any]:
    """Three interventions a cell."""
    return {"grid": ["phase"]}


def measure_plan(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan an atlas of the whole source."""
    with open_generator() as generator:
        generator.plan_atlas(few_cells(), **grid_options())  # what is imported and loaded once
        with Timed() as timed:
            plan = generator.plan_atlas(source_path(arguments), **grid_options())
    return timed.figures | {"rows": plan.rows, "plan_shards": plan.shards, "digest": plan.digest[:12]}


def few_cells() -> Any:
    """A few cells of the model's genes, in memory."""
    import anndata
    import pandas as pd

    manifest = json.loads((MODELS / "manifest.json").read_text())
    genes = manifest["genes"]["names"]
    labels = {each["name"]: pd.Categorical([each["labels"][0]] * 4) for each in manifest["concepts"]}
    obs = pd.DataFrame(labels, index=[f"few_{i}" for i in range(4)])
    return anndata.AnnData(np.ones((4, len(genes)), dtype=np.float32), obs=obs, var=pd.DataFrame(index=genes))


def open_task(arguments: argparse.Namespace) -> Any:
    """A task as the driver would send it, without what the driver checks."""
    from causcell.atlas.plan import plan_layout
    from causcell.atlas.source_digests import SourceDigests
    from causcell.atlas.task import AtlasTask
    from causcell.cells.panel_cells import CellSource
    from causcell.counterfactual.request import make_request

    with open_generator() as generator:
        manifest = generator.manifest
        request = make_request(manifest, grid=["phase"], settings=generator.solver_settings())
        digests = SourceDigests(names="0" * 64, labels="0" * 64, genes="0" * 64, values="0" * 64)
        plan = plan_layout(
            generator.model, arguments.cells, digests, request, chunk_size=2 * 10**6, shard_size=128 * 10**6
        )
        source = generator.source
    return AtlasTask(plan, str(arguments.folder / "worker.zarr"), source, CellSource(str(source_path(arguments))))


def measure_worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Open a pickled task, and read the first batch of a shard in the middle with its labels."""
    import pickle

    with open_generator() as generator:
        generator.counterfactual(few_cells(), do={"phase": "S"})
    packed = pickle.dumps(open_task(arguments))
    with Timed() as opened:
        maker = pickle.loads(packed).open()
    with Timed() as read:
        cells = maker.plan.cells_of(maker.plan.shards // 2)
        next(iter(maker.blocks([slice(cells.start, cells.start + 256)])))
    return {"open": opened.figures, "first_batch": read.figures, "task_bytes": len(packed)}


def measure_unseen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Look for combinations of four concepts' labels, a million rows."""
    from causcell.concepts import unseen_combinations

    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(-1, size, 1_000_000) for size in (12, 8, 3, 40)], axis=1).astype(np.int32)
    seen = np.unique(codes[:5000].clip(0), axis=0)
    with Timed() as timed:
        unseen = unseen_combinations(codes, seen)
    return timed.figures | {"rows": len(codes), "unseen": int(unseen.sum())}


def simulated_atlas(arguments: argparse.Namespace, layout: str, done: int) -> tuple[Any, Path]:
    """Begin an atlas of many shards of one small batch each, and put the files of some shards where they would be.

    One shard is made; the files of every other one are there by name, and empty.
    """
    from causcell.atlas.records import FileRecord
    from causcell.atlas.task import ShardMaker
    from causcell.cells.collection import Cells
    from causcell.counterfactual.stream import MeasuredCells

    path = Path(arguments.folder) / f"{layout}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    generator = open_generator()
    model, schema = generator.model, generator.schema
    source = generator.bind(Cells(few_cells()))
    plan = plan_of_shards(arguments, model, layout)
    maker = ShardMaker(plan, path, model, Repeated(MeasuredCells(model, source), plan.cells, schema))
    journal = maker.journal
    with journal.locked():
        begin(maker, journal)
        (first,) = (event.record for event in maker.make([0]) if hasattr(event, "record"))
        own = [str(each) for each in Path(path, ".causcell", "pieces").rglob("*") if each.is_file()]
        empty = FileRecord(bytes=0, sha256="0" * 64)
        records = {0: first}
        for shard in range(1, done):
            files = {of_shard(name, shard): empty for name in first.files}
            for place in [f"{path}/{name}" for name in files] + [
                each.replace("000000", f"{shard:06d}") for each in own
            ]:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                Path(place).touch()
            records[shard] = first.model_copy(update={"shard": shard, "files": files})
        write_records(journal, plan, records)
    return maker, path


def write_records(journal: Any, plan: Any, records: dict[int, Any]) -> None:
    """Write records as a run leaves them: of many shards in a file where a version does that, else each in one."""
    whole = 0
    if getattr(plan, "group", None):
        from causcell.atlas import record_batches

        whole = len(records) // record_batches.BATCH
        for number in range(whole):
            record_batches.gather(journal.storage, plan.shards, number, records, set())
        whole *= record_batches.BATCH
    for shard, record in records.items():
        if shard >= whole:
            place = Path(journal.place, ".causcell", "shards", f"{shard:06d}.json")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(record.model_dump(mode="json"), indent=1))


def of_shard(name: str, shard: int) -> str:
    """Return the name of another shard's file, of the first's."""
    head, separator, tail = name.rpartition("/c")
    return head + separator + tail.replace("0", str(shard), 1)


def begin(maker: Any, journal: Any) -> None:
    """Put the plan and the metadata in place."""
    from causcell.atlas import write

    write._begin(maker, journal, {"files": []})


def plan_of_shards(arguments: argparse.Namespace, model: Any, layout: str) -> Any:
    """Plan an atlas of so many shards of four cells."""
    from causcell.atlas.plan import plan_layout
    from causcell.atlas.source_digests import SourceDigests
    from causcell.counterfactual.request import make_request

    manifest = model.manifest
    settings = manifest.presets[manifest.default_preset].solver
    request = make_request(manifest, grid=["phase"], settings=settings)
    digests = SourceDigests(names="0" * 64, labels="0" * 64, genes="0" * 64, values="0" * 64)
    row = 4 * len(manifest.genes.names)
    sizes = {"chunk_size": 3 * row, "shard_size": 12 * row}
    return plan_layout(model, 4 * arguments.shards, digests, request, layout=layout, **sizes)


class Repeated:
    """A few cells again and again, each time by other names: the source of an atlas that is simulated."""

    def __init__(self, source: Any, cells: int, schema: Any) -> None:
        self._source, self._cells = source, cells
        self.labels = np.zeros((8, len(schema.concepts)), dtype=np.int32)
        self.numbers, self.missing = None, ()

    def __len__(self) -> int:
        return self._cells

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class ExecutorAskedError(Exception):
    """The executor was asked for shards."""


class Nothing:
    """An executor that tells when it is asked, and makes nothing."""

    def __init__(self) -> None:
        self.shards = 0

    def run(self, maker: Any, shards: Any) -> Any:
        """Note how many shards are missing."""
        self.shards = len(shards)
        raise ExecutorAskedError


def measure_restart(arguments: argparse.Namespace) -> dict[str, Any]:
    """Restart an atlas of which all but 3,000 shards are done, dense and as CSR: the first time, and again."""
    from causcell.atlas.write import write_atlas

    found: dict[str, Any] = {}
    done = arguments.shards - 3000
    for layout in ("dense", "csr"):
        maker, path = simulated_atlas(arguments, layout, done)
        for name in ("first", "again", "third"):
            executor = Nothing()
            with Timed() as timed, contextlib.suppress(ExecutorAskedError):
                write_atlas(maker, {"files": []}, executor=executor)
            found[f"{layout} {name}"] = timed.figures | {"missing": executor.shards}
            print(layout, name, found[f"{layout} {name}"], file=sys.stderr, flush=True)  # removing all takes long
        kinds = {"files": 0, "records": 0}
        for place in path.rglob("*"):
            if place.is_file():
                of_records = "/.causcell/shards/" in str(place) or "/.causcell/records/" in str(place)
                kinds["records" if of_records else "files"] += 1
        found[f"{layout} files a shard"] = round(kinds["files"] / done, 2)
        found[f"{layout} records a shard"] = round(kinds["records"] / done, 3)
        shutil.rmtree(path)
    return found


def do_nothing(task: Any, shard: int) -> Any:
    """Stand for a worker that makes a shard in no time."""
    from causcell.atlas.records import ShardRecord
    from causcell.counterfactual.tables import Unseen

    return ShardRecord(shard=shard, rows=1, files={}, unmatched=0, unseen=Unseen(), seconds={}, worker="none")


def measure_dask(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hand shards of no work to a Dask cluster of one worker; count those in the scheduler's hands."""
    import distributed

    from causcell.atlas.executors import dask as module

    module.make_shard = do_nothing
    task = open_task(arguments)
    maker = type("Maker", (), {"task": task})()
    most = 0
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp://",
            dashboard_address=":0",
            host="127.0.0.1",
        ) as cluster,
        Timed() as timed,
    ):
        events = module.Dask(cluster.scheduler_address).run(maker, range(arguments.shards))
        started = time.perf_counter()
        for place, _ in enumerate(events):
            if place == 0:
                first = time.perf_counter() - started
            if place % 50 == 0:
                most = max(most, len(cluster.scheduler.tasks))
            if place == 2000:
                events.close()
                break
    return timed.figures | {"first_seconds": round(first, 3), "most_in_scheduler": most, "taken": place}


MEASURED = {
    "plan": measure_plan,
    "worker": measure_worker,
    "unseen": measure_unseen,
    "restart": measure_restart,
    "dask": measure_dask,
}

if __name__ == "__main__":
    main()
