"""Demo: the main job on real cells that a dependency ships, start to finish, and a look at what came out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.files import local_path, refuse_existing
from causcell.evaluation.metrics import mean_squared_error, pearson
from causcell.generator import Generator
from causcell_export.demo_page import Question, choose_questions, write_page
from causcell_export.exporter import export
from causcell_training.config import TrainConfig, load_config
from causcell_training.curves import training_curves
from causcell_training.data.split import PART, TEST
from causcell_training.fitting import fit
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_CURVES = ("train/reconstruction", "held_out/mse", "train/classification", "train/adversary")

CONCEPTS = ("bulk_labels", "phase")
EDGES = ("bulk_labels:phase",)
LABEL = "S"

B_CELL_GENES = (
    "BANK1", "BLK", "CD19", "CD22", "CD37", "CD40", "CD74", "CD79A", "CD79B", "FCRLA", "HLA-DMA", "HLA-DMB", "HLA-DQA1",
    "HLA-DQB1", "HLA-DRA", "IGLL5", "MS4A1", "PAX5", "SPIB", "TNFRSF13B", "TNFRSF13C", "VPREB3",
)  # fmt: skip
"""Genes of B cells by common knowledge: their receptor and what it signals by, class II, and their markers."""

S_PHASE_GENES = (
    "ATAD2", "CDC45", "CDC6", "CENPU", "CHAF1B", "CLSPN", "DHFR", "DTL", "DUT", "FEN1", "GINS2", "GMNN", "HELLS",
    "HMGB2", "MCM2", "MCM3", "MCM4", "MCM5", "MCM6", "MCM7", "MSH2", "NASP", "PCNA", "POLA1", "PRIM1", "RFC2", "RRM1",
    "RRM2", "SLBP", "STMN1", "TK1", "TUBA1B", "TYMS", "UHRF1", "UNG", "USP1",
)  # fmt: skip
"""Genes of DNA replication and S phase, from the literature on the cell cycle (Whitfield et al. 2002, and later)."""


QUESTIONS = (
    Question("bulk_labels", "CD19+ B", "CD14+ Monocyte", B_CELL_GENES, "genes of B cells"),
    Question("phase", LABEL, "G1", S_PHASE_GENES, "genes of S phase"),
)
"""What the demo asks, unless the model's own verdict calls it unusable."""


def demo_config() -> TrainConfig:
    """Return settings for a small model of the bundled cells: below 8 MB exported, trained in about a minute."""
    return load_config(
        overrides={
            "concept": CONCEPTS,
            "edge": EDGES,
            "expression": "log1p",
            "genes": "all",
            "model.width": 96,
            "model.encoder_width": 256,
            "optimisation.batch_size": 64,
        }
    )


def demo_cells() -> anndata.AnnData:
    """Load 700 PBMC with 765 genes (Zheng et al. 2017, reduced by scanpy): log1p values, cell type and cycle phase."""
    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is older than the format it is read by
        cells = scanpy.datasets.pbmc68k_reduced().raw.to_adata()
    cells.obs = cells.obs[list(CONCEPTS)]
    for name in ("uns", "obsm", "obsp", "varm"):
        getattr(cells, name).clear()
    return cells


def run_demo(out: Path, *, progress: bool = True) -> None:
    """Train, export, verify, generate and show; everything is left in ``out``.

    Parameters
    ----------
    out
        Folder to make.
    progress
        Show progress bars.

    Raises
    ------
    OutputExistsError
        Something is at ``out``.
    """
    out = local_path(out)
    refuse_existing(out)
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    data = out / "cells.h5ad"
    demo_cells().write_h5ad(data)
    with _timed(seconds, "train"):
        run = fit(data, out / "run", config=demo_config(), progress=progress)
    with _timed(seconds, "export and verify"):
        repository = export(run, out / "repository", progress=progress)
    rows = {}
    with Generator.open(repository) as generator:
        for name, do, grid in (("do", {"phase": LABEL}, ()), ("grid", {}, ("phase",))):
            with _timed(seconds, name):
                written = generator.write_atlas(data, out / f"{name}_phase.zarr", do, grid=grid, progress=progress)
            rows[name] = written.rows
        lines = [*_describe_job(run, seconds, rows), *_describe_estimate(run)]
        lines += _describe_labels(run, generator.embed(data).obs)
        _save_training_curves(out)
        shown = choose_questions(QUESTIONS, generator.manifest.verdicts)
        page = write_page(out, demo_cells(), generator, shown, dict(lines), by=CONCEPTS[0])
    _print_table(lines)
    for question in QUESTIONS:
        if question not in shown:
            print(f"\n  not shown: {question.name}, which the model's own verdict does not call usable")
    print(f"\n  open {page.resolve().as_uri()}")


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _describe_job(run: Run, seconds: dict[str, float], rows: dict[str, int]) -> list[tuple[str, str]]:
    """Describe what was done and how long it took, as name and text."""
    held_out, genes = run.held_out().n_obs, len(run.model.preprocessing.genes)
    return [
        ("cells x genes", f"{run.training_cells.count} trained on, {held_out} held out x {genes}"),
        ("training", f"{seconds['train']:.1f} s, {run.provenance['epochs']} epochs"),
        ("export and verify", f"{seconds['export and verify']:.1f} s"),
        (f"atlas do(phase={LABEL})", _format_rate(rows["do"], seconds["do"])),
        ("atlas grid over phase", _format_rate(rows["grid"], seconds["grid"])),
    ]


def _describe_estimate(run: Run) -> list[tuple[str, str]]:
    """Describe the mean estimate of the test cells beside the mean of each cell type, as name and text."""
    test = _test_cells(run)
    real, profiles = test.X.toarray(), _label_means(run)[test.obs[CONCEPTS[0]].cat.codes]
    measures = run.provenance["held_out"]
    return [
        ("held-out mean estimate", f"PCC {measures['pcc']:.3f}, MSE {measures['mse']:.3f}"),
        (
            f"  mean of each {CONCEPTS[0]}",
            f"PCC {pearson(real, profiles):.3f}, MSE {mean_squared_error(real, profiles):.3f}",
        ),
    ]


def _describe_labels(run: Run, predicted: pd.DataFrame) -> list[tuple[str, str]]:
    """Describe how often the labels read from embeddings are right, on the test cells, as name and text."""
    test, lines = _test_cells(run), []
    for concept in CONCEPTS:
        found = np.asarray(predicted.loc[test.obs_names, f"{concept}_predicted"].astype(str))
        truth = np.asarray(test.obs[concept].astype(str))
        majority = test.obs[concept].value_counts(normalize=True).max()
        text = f"{(found == truth).mean():.2f} right (most frequent: {majority:.2f})"
        lines.append((f"held-out {concept} predicted", text))
    return lines


def _print_table(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    print()
    for name, value in lines:
        print(f"  {name:<{width}}  {value}")


def _format_rate(rows: int, seconds: float) -> str:
    return f"{rows} rows in {seconds:.2f} s, {rows / seconds:,.0f} rows/s"


def _test_cells(run: Run) -> anndata.AnnData:
    held_out = run.held_out()
    return held_out[held_out.obs[PART] == TEST]


def _label_means(run: Run) -> np.ndarray:
    """Average the expression of the training cells of each label of the first concept, float32 [labels x G]."""
    cells = demo_cells()
    trained = run.training_cells.contain(cells.obs_names.tolist())
    labels, expression = run.model.schema.encode(cells.obs)[trained, 0], cells.X[trained].toarray()
    return np.stack([expression[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


def _save_training_curves(out: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    FigureCanvasAgg(figure)
    training_curves(out / "run", _CURVES, ax=figure.add_subplot())
    figure.savefig(out / "training.png", dpi=150, bbox_inches="tight")
