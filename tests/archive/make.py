"""Write one small example of every file format, with the version of CausCell that is installed; see README.md.

Usage: ``python tests/archive/make.py tests/archive/VERSION``. Everything is made by the command line, whose form is
stable, so that the same script runs with any version. Simulated cells, seeds and one thread make it repeatable.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from simulation import CONCEPTS, EDGES, simulated_cells

CELLS, GENES = 160, 40
SOURCE_CELLS = 24
"""Cells that the atlases are made of: some that the model was trained on."""

SETTINGS = {
    "model.embedding": 4,
    "model.components": 16,
    "model.encoder_width": 16,
    "model.width": 16,
    "model.blocks": 1,
    "model.heads": 2,
    "model.head": "spike_slab",
    "optimisation.epochs": 30,
    "optimisation.batch_size": 32,
    "optimisation.validate_every": 3,
}

ROW = 4 * GENES
"""Bytes of a row of float32 expression."""

LAYOUT = ["--batch-size", "8", "--threads", "1", "--chunk-size", str(8 * ROW), "--shard-size", str(24 * ROW)]
"""Three shards of 24 rows: 8 cells each, three interventions a cell."""

WHAT = ["--solver", "draw", "--seed", "7"]
ATLASES = {
    "expression": [*WHAT, "--grid", "cell_type"],
    "expression16": [*WHAT, "--grid", "cell_type", "--dtype", "float16"],
    "embeddings": [*WHAT, "--grid", "cell_type", "--store", "embeddings"],
    "effects": [*WHAT, "--grid", "cell_type", "--store", "effects"],
    "summary": ["--solver", "draw", "--seed", "7", "--do", "stim=IFN", "--draws", "3", "--store", "summary"],
}
"""Options of ``causcell generate``, by the folder's name."""

UNFINISHED = [*WHAT, "--grid", "cell_type", "--grid", "stim", "--draws", "2"]
"""Twelve rows a cell: shards of two cells, twelve of them, of which the interrupted run makes a few."""


PLACE = Path(tempfile.gettempdir()) / "causcell-archive"
"""Where it is made: an atlas records the absolute path of its cells, which should be nobody's own."""

COMMAND = [sys.executable, "-c", "from causcell.cli.main import main; main()"]


def run(*arguments: str, folder: Path) -> None:
    """Run a command in ``folder``."""
    subprocess.run([*COMMAND, *arguments], cwd=folder, check=True)


def train_and_export(folder: Path) -> None:
    """Write the run, and the model repository that is exported from it."""
    chosen = [word for name in CONCEPTS for word in ("--concept", name)]
    chosen += [word for edge in EDGES for word in ("--edge", edge)]
    chosen += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    run("train", "training.h5ad", "--out", "run", "--genes", "all", "--no-progress", *chosen, folder=folder)
    run("export", "run", "--out", "models", folder=folder)


def interrupt(folder: Path) -> None:
    """Kill a command that writes an atlas when it has committed some shards and not all."""
    place = folder / "unfinished.zarr"
    command = [*COMMAND, "generate", "cells.h5ad", "--models", "models", "--out", place.name, *UNFINISHED, *LAYOUT]
    for _ in range(50):
        process = subprocess.Popen([*command, "--no-progress"], cwd=folder)
        while process.poll() is None and len(list(place.glob(".causcell/shards/*.json"))) < 3:
            time.sleep(0.0005)
        process.kill()
        process.wait()
        if not (place / "zarr.json").exists():
            return
        shutil.rmtree(place)
    raise RuntimeError("the atlas was finished each time before it could be interrupted")


def expected(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return what is in the archive: arrays by name, and the rest for JSON."""
    arrays: dict[str, np.ndarray] = {}
    manifest = json.loads((folder / "models" / "manifest.json").read_text())
    embedded = anndata.read_h5ad(folder / "embedded.h5ad")
    for key in embedded.obsm:
        arrays[f"embedded/{key}"] = np.asarray(embedded.obsm[key])
    obs = {}
    for name in [*ATLASES, "unfinished"]:
        atlas = anndata.read_zarr(folder / "complete" / f"{name}.zarr")
        if atlas.X is not None:
            arrays[f"{name}/X"] = np.asarray(atlas.X)
        for element in ("obsm", "layers"):
            for key, values in getattr(atlas, element).items():
                arrays[f"{name}/{element}/{key}"] = np.asarray(values)
        obs[name] = {"names": atlas.obs_names.tolist()} | {
            column: [None if value != value else value for value in atlas.obs[column].tolist()] for column in atlas.obs
        }
    rest = {
        "version": metadata.version("causcell"),
        "model_digest": manifest["digest"],
        "genes": manifest["genes"]["names"],
        "options": {**ATLASES, "unfinished": UNFINISHED},
        "layout": LAYOUT,
        "obs": obs,
    }
    return arrays, rest


def make(out: Path) -> None:
    """Write the archive into ``out``, which must not be there."""
    (PLACE / "complete").mkdir(parents=True)
    try:
        folder = PLACE
        cells = simulated_cells(CELLS, GENES)
        cells.write_h5ad(folder / "training.h5ad", compression="gzip")
        cells[:SOURCE_CELLS].copy().write_h5ad(folder / "cells.h5ad", compression="gzip")
        train_and_export(folder)
        run("embed", "cells.h5ad", "--models", "models", "--out", "embedded.h5ad", "--threads", "1", folder=folder)
        for name, options in {**ATLASES, "unfinished": UNFINISHED}.items():
            place = f"complete/{name}.zarr"
            run("generate", "cells.h5ad", "--models", "models", "--out", place, *options, *LAYOUT, folder=folder)
        interrupt(folder)
        arrays, rest = expected(folder)
        write_archive(folder, out, arrays, rest)
    finally:
        shutil.rmtree(PLACE)


def write_archive(folder: Path, out: Path, arrays: dict[str, np.ndarray], rest: dict[str, object]) -> None:
    """Copy what is kept; each atlas is one zip file, as it consists of more than a hundred small ones."""
    for name in ("run", "models"):
        shutil.copytree(folder / name, out / name)
    shutil.copy(folder / "cells.h5ad", out)
    for name in ATLASES:
        shutil.make_archive(str(out / f"{name}.zarr"), "zip", folder / "complete" / f"{name}.zarr")
    shutil.make_archive(str(out / "unfinished.zarr"), "zip", folder / "unfinished.zarr")
    np.savez_compressed(out / "expected.npz", **arrays)
    (out / "expected.json").write_text(json.dumps(rest, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
