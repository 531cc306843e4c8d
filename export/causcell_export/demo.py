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
from causcell.plot import counterfactual_embedding
from causcell_export.exporter import export
from causcell_training.config import TrainConfig, load_config
from causcell_training.curves import training_curves
from causcell_training.data.split import PART, TEST
from causcell_training.fitting import fit
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata
    import pandas as pd

CONCEPTS = ("bulk_labels", "phase")
EDGES = ("bulk_labels:phase",)
LABEL = "S"

S_PHASE_GENES = (
    "ATAD2", "CDC45", "CDC6", "CENPU", "CHAF1B", "CLSPN", "DHFR", "DTL", "DUT", "FEN1", "GINS2", "GMNN", "HELLS",
    "HMGB2", "MCM2", "MCM3", "MCM4", "MCM5", "MCM6", "MCM7", "MSH2", "NASP", "PCNA", "POLA1", "PRIM1", "RFC2", "RRM1",
    "RRM2", "SLBP", "STMN1", "TK1", "TUBA1B", "TYMS", "UHRF1", "UNG", "USP1",
)  # fmt: skip
"""Genes of DNA replication and S phase, from the literature on the cell cycle (Whitfield et al. 2002, and later)."""


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
        factual = generator.reconstruct(data, preset="mean")
        counterfactual = generator.counterfactual(data, do={"phase": LABEL}, preset="mean")
        predicted = generator.embed(data).obs
    _print_table([*_describe_job(run, seconds, rows), *_describe_estimate(run), *_describe_labels(run, predicted)])
    _print_effect(factual, counterfactual)
    _save_figures(out, factual, counterfactual)


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


def _print_effect(factual: anndata.AnnData, counterfactual: anndata.AnnData) -> None:
    """Print the genes that move most, and where known S-phase genes stand among them."""
    moved = np.asarray(counterfactual.obs["phase_factual"] != LABEL)
    effect = (np.asarray(counterfactual.X) - np.asarray(factual.X))[moved].mean(axis=0)
    genes = factual.var_names.to_numpy()
    print(f"\n  Genes that move most under do(phase={LABEL}), {moved.sum()} cells (* known S-phase gene):")
    print(f"    {_format_top_genes(genes, effect)}")
    print(f"  Known S-phase genes of the panel, by rank among {len(genes)} from most raised to most lowered:")
    print(f"    {_format_known_genes(genes, effect)}")


def _format_top_genes(genes: np.ndarray, effect: np.ndarray) -> str:
    largest = np.argsort(-np.abs(effect))[:15]
    return ", ".join(f"{genes[i]} {effect[i]:+.2f}" + ("*" if genes[i] in S_PHASE_GENES else "") for i in largest)


def _format_known_genes(genes: np.ndarray, effect: np.ndarray) -> str:
    ranked = enumerate(np.argsort(-effect), start=1)
    return ", ".join(f"{genes[i]} {effect[i]:+.2f} (#{rank})" for rank, i in ranked if genes[i] in S_PHASE_GENES)


def _save_figures(out: Path, factual: anndata.AnnData, counterfactual: anndata.AnnData) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures = {"training.png": Figure(figsize=(6, 4)), "counterfactual.png": Figure(figsize=(8, 5))}
    names = ("train/reconstruction", "held_out/mse", "train/classification", "train/adversary")
    training_curves(out / "run", names, ax=figures["training.png"].add_subplot())
    counterfactual_embedding(factual, counterfactual, color=CONCEPTS[0], ax=figures["counterfactual.png"].add_subplot())
    print()
    for name, figure in figures.items():
        FigureCanvasAgg(figure)
        figure.savefig(out / name, dpi=150, bbox_inches="tight")
        print(f"  {out / name}")
