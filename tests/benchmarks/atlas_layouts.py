"""Layouts of an atlas by what is stored: what they cost to write and to open, and what readers take out of them.

Prints Markdown: bytes a row, rows/s and peak memory of ``causcell generate`` file to file; the ratio of CSR to dense,
turn about; CPU time (the least of three) and memory of ``anndata.read_zarr``; and the CPU time to read one
intervention, one cell type and one gene by ``anndata.experimental.read_lazy``, from a dense array, a CSR matrix in the
atlas's order, and one whose rows stand by intervention.

    python tests/benchmarks/atlas_layouts.py --folder /some/place --rows 100000

The cells are the 700 of scanpy's ``pbmc68k_reduced``, over and over under other names, with the checked-in model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata
import atlas
import numpy as np
import pandas as pd
import scanpy
import zarr
from zarr.codecs import ZstdCodec

from causcell._internal.units import format_size

GRID, TYPE = "phase", "bulk_labels"
CASES: dict[str, tuple[list[object], str]] = {
    "expression": ([], "dense"),
    "expression, float16": (["--dtype", "float16"], "dense"),
    "effects": (["--store", "effects"], "dense"),
    "embeddings": (["--store", "embeddings"], "dense"),
    "summary of 2 draws": (["--store", "summary", "--draws", 2], "dense"),
    "expression ": ([], "csr"),
    "effects ": (["--store", "effects"], "csr"),
}
"""Options and layout of what is stored; the first and ``expression `` are compared."""

PROBE = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import anndata, numpy as np, scanpy, scipy.sparse, zarr, dask
dask.config.set(scheduler="single-threaded")
path, what = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
if what == "whole":
    shape = anndata.read_zarr(path).shape
else:
    lazy = anndata.experimental.read_lazy(path)
    column, _, value = what.partition("=")
    if column == "gene":
        found = lazy[:, value].to_memory()
    elif what == "open":
        found = lazy
    else:
        found = lazy[np.asarray(lazy.obs[column].to_series().astype(str) == value)].to_memory()
    shape = found.shape
seconds = time.process_time() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "bytes": (peak - before) * 1024, "shape": shape}))
"""
"""Read something of an atlas in a process of its own: CPU time, and growth of its peak memory."""


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the source and the atlases")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--models", default="model_repository")
    parser.add_argument("--repeats", type=int, default=3, help="of what is compared")
    parser.add_argument("--only-csr", action="store_true", help="dense and CSR expression alone")
    parser.add_argument("--read", action="store_true", help="read the atlases that an earlier run made")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("anndata", "zarr", "numcodecs", "scipy", "onnxruntime"))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}, {versions}")
    data = source(arguments.folder, arguments.rows // 3)
    cases = {name: case for name, case in CASES.items() if not arguments.only_csr or name.strip() == "expression"}
    if not arguments.read:
        measure_writing(arguments, data, cases)
    measure_opening(arguments.folder, cases)
    measure_reading(arguments.folder)


def source(folder: Path, cells: int) -> Path:
    """A file of the same cells over and over (CSR); kept for the next time."""
    path = folder / f"cells_{cells}.h5ad"
    if path.exists():
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reduced = scanpy.datasets.pbmc68k_reduced()
    some, rows = reduced.raw.to_adata(), np.arange(cells) % reduced.n_obs
    obs = reduced.obs[[TYPE, GRID]].iloc[rows].set_axis([f"cell_{i:07d}" for i in range(cells)])
    anndata.AnnData(some.X[rows], obs=obs, var=pd.DataFrame(index=some.var_names)).write_h5ad(path)
    return path


def place_of(folder: Path, name: str, layout: str) -> Path:
    """Where the atlas of a case is."""
    return folder / f"{name.strip().replace(' ', '_').replace(',', '')}_{layout}.zarr"


def measure_writing(arguments: argparse.Namespace, data: Path, cases: dict[str, tuple[list[object], str]]) -> None:
    """Write every case, and the two that are compared turn about."""
    runs: dict[str, list[atlas.Watched]] = {name: [] for name in cases}
    for repeat in range(arguments.repeats):
        for name, (options, layout) in cases.items():
            if repeat and name.strip() != "expression":
                continue
            out = place_of(arguments.folder, name, layout)
            shutil.rmtree(out, ignore_errors=True)
            words = ["--threads", 1, "--layout", layout, *options]
            runs[name].append(atlas.generate(data, arguments.models, out, words, grid=GRID))
    print("\n| stored | layout | bytes a row | rows/s file to file | peak memory |\n|---|---|---|---|---|")
    for name, (_, layout) in cases.items():
        out, first = place_of(arguments.folder, name, layout), runs[name][0]
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file() and ".causcell" not in file.parts)
        seconds = float(np.median([run.seconds for run in runs[name]]))
        peak = format_size(max(run.peak for run in runs[name]))
        print(f"| {name} | {layout} | {size / first.rows:,.0f} | {first.rows / seconds:,.0f} | {peak} |")
    both = zip(runs["expression "], runs["expression"], strict=True)
    ratios = [(csr.seconds / dense.seconds, csr.cpu / dense.cpu) for csr, dense in both]
    for title, found in zip(("time of the whole command", "CPU time of it"), zip(*ratios, strict=True), strict=True):
        print(f"\nCSR against dense expression, {title}, turn about: {', '.join(f'{each:.2f}' for each in found)}")


def probe(path: Path, what: str) -> dict[str, float]:
    """Read something of an atlas in another process."""
    found = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", PROBE, path, what], capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(run.stderr[-2000:])
        found.append(json.loads(run.stdout))
    return dict(min(found, key=lambda each: each["seconds"]))


def measure_opening(folder: Path, cases: dict[str, tuple[list[object], str]]) -> None:
    """Read whole atlases into memory, and open them lazily."""
    print("\n| stored | layout | read_zarr | memory | read_lazy |\n|---|---|---|---|---|")
    for name, (_, layout) in cases.items():
        whole, lazy = (probe(place_of(folder, name, layout), what) for what in ("whole", "open"))
        memory = format_size(int(whole["bytes"]))
        print(f"| {name} | {layout} | {whole['seconds']:.2f} s | {memory} | {lazy['seconds']:.2f} s |")


def measure_reading(folder: Path) -> None:
    """Read parts of a dense array and of CSR matrices in two orders."""
    dense, csr = place_of(folder, "expression", "dense"), place_of(folder, "expression", "csr")
    places = {"dense": dense, "CSR": csr, "CSR by intervention": sort_by_intervention(csr, folder / "sorted.zarr")}
    whats = {
        "one intervention": "intervention=phase=S",
        "one cell type": f"{TYPE}_factual=Dendritic",
        "one gene": "gene=CD3D",
    }
    print(f"\n| read lazily | {' | '.join(places)} |\n|---|---|---|---|")
    for title, what in whats.items():
        found = {name: probe(path, what) for name, path in places.items()}
        cells = " | ".join(f"{each['seconds']:.2f} s" for each in found.values())
        print(f"| {title} | {cells} |")


def sort_by_intervention(path: Path, out: Path) -> Path:
    """Write an atlas again, its rows by intervention, in chunks of the same size."""
    started = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    made = anndata.read_zarr(path)
    made = made[np.argsort(made.obs["intervention"].cat.codes, kind="stable")].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.settings.zarr_write_format = 3
        made.write_zarr(out)
        before = zarr.open_group(path, mode="r")
        group = zarr.open_group(out, mode="r+", use_consolidated=False)
        for name, values in (("data", made.X.data), ("indices", made.X.indices), ("indptr", made.X.indptr)):
            like = before[f"X/{name}"]
            del group[f"X/{name}"]
            group["X"].create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=like.chunks,
                shards=like.shards,
                compressors=[ZstdCodec(level=1)],
            )[:] = values
        zarr.consolidate_metadata(group.store)
    print(f"\n(sorted by intervention in memory and written again in {time.perf_counter() - started:.1f} s)")
    return out


if __name__ == "__main__":
    main()
