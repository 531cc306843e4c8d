"""Export: from a training run to a verified model repository."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell.expression import TARGET_SUM, gene_digest
from causcell.generator import Generator
from causcell.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    SCHEMA_VERSION,
    Dimensions,
    ExpressionInfo,
    GenePanel,
    Manifest,
    Parity,
    Preset,
)
from causcell.metrics import mean_squared_error, pearson, sample_quality
from causcell.output import new_folder
from causcell.repository import file_digest
from causcell.solvers import SolverSettings
from causcell_export.graphs import Graph, example_inputs, graphs
from causcell_export.onnx_file import OPSET, TRACE_BATCH, write_onnx
from causcell_export.torchscript import write_torchscript
from causcell_export.triton_config import triton_config
from causcell_export.verification import BATCHES, verify_onnx, verify_torchscript
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata

_REGRESSION_PRESETS = {
    "mean": SolverSettings("mean"),
    "balanced": SolverSettings("ddim", steps=20),
    "accurate": SolverSettings("ddpm", steps=250),
}
"""For heads whose samples have a fraction of real cells' variance: the mean is their best answer."""

PRESETS = {
    "plain": _REGRESSION_PRESETS,
    "skip": _REGRESSION_PRESETS,
    "spike_slab": {
        "draw": SolverSettings("draw"),
        "balanced": SolverSettings("draw", steps=10),
        "accurate": SolverSettings("draw", steps=50),
        "mean": SolverSettings("mean"),
    },
}
"""Presets by head; the first is the default."""

_CELLS_TO_MEASURE = 1024


def export(run: Run | str | os.PathLike[str], out: str | os.PathLike[str], *, torchscript: bool = False) -> Path:
    """Write a model repository, verified against the trained model on its held-out cells.

    It is made beside ``out`` and renamed to it when everything holds; an export that fails writes nothing.

    Parameters
    ----------
    run
        A finished run, or its folder.
    out
        Folder of the repository.
    torchscript
        Also write each graph as ``<graph>_torchscript`` for Triton's PyTorch backend.

    Returns
    -------
    The repository's path.

    Raises
    ------
    ExportVerificationError
        An exported graph differs from the trained model.
    RunError
        The run can't be used.
    OutputExistsError
        Something is at ``out``.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    held_out = run.held_out()
    with new_folder(out) as staging:
        parity = _write_graphs(run, held_out.X.toarray(), staging, torchscript)
        run.reference.save(staging / REFERENCE_FILE)
        manifest = _manifest(run, staging, parity)
        _write_manifest(manifest, staging)
        _write_manifest(_with_quality(manifest, staging, held_out), staging)
    return Path(out)


def _write_graphs(run: Run, expression: np.ndarray, root: Path, torchscript: bool) -> dict[str, Parity]:
    stamp = {
        "causcell.gene_digest": gene_digest(run.model.preprocessing.genes),
        "causcell.schema_version": str(SCHEMA_VERSION),
    }
    inputs = {batch: example_inputs(run.model, expression, batch) for batch in {*BATCHES, TRACE_BATCH}}
    parity = {}
    for name, graph in graphs(run.model).items():
        examples = {batch: inputs[batch][name] for batch in BATCHES}
        path = root / name / "1" / "model.onnx"
        write_onnx(graph, inputs[TRACE_BATCH][name], path, stamp)
        (root / name / "config.pbtxt").write_text(triton_config(name, graph.info))
        parity[name] = verify_onnx(name, graph, path, examples)
        if torchscript:
            twin = f"{name}_torchscript"
            path = root / twin / "1" / "model.pt"
            write_torchscript(graph, inputs[TRACE_BATCH][name], path)
            (root / twin / "config.pbtxt").write_text(triton_config(twin, graph.info, "pytorch"))
            parity[twin] = verify_torchscript(twin, graph, path, examples)
    return parity


def _manifest(run: Run, root: Path, parity: dict[str, Parity]) -> Manifest:
    model, preprocessing = run.model, run.model.preprocessing
    infos: dict[str, Graph] = graphs(model)
    presets = PRESETS[model.config.head]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return Manifest(
        genes=GenePanel(names=preprocessing.genes, digest=gene_digest(preprocessing.genes)),
        expression=ExpressionInfo(
            scale=preprocessing.scale,
            target_sum=TARGET_SUM if preprocessing.scale == "counts" else None,
            normalisation_genes=preprocessing.normalisation_genes,
            mean=tuple(float(str(value)) for value in preprocessing.mean),  # the shortest text of a float32
            deviation=tuple(float(str(value)) for value in preprocessing.deviation),
        ),
        concepts=model.schema.concepts,
        edges=model.schema.edges,
        schedule=model.schedule,
        dimensions=Dimensions(
            genes=len(preprocessing.genes), concepts=len(model.schema.concepts), embedding=model.config.embedding
        ),
        head=model.config.head,
        presets={name: Preset(solver=settings) for name, settings in presets.items()},
        default_preset=next(iter(presets)),
        graphs={name: graph.info for name, graph in infos.items()},
        parity=parity,
        files={path.relative_to(root).as_posix(): file_digest(path) for path in files},
        training_cells=run.training_cells,
        provenance=run.provenance,
        versions=run.versions | {"onnx": metadata.version("onnx"), "opset": str(OPSET)},
    )


def _write_manifest(manifest: Manifest, root: Path) -> None:
    (root / MANIFEST_FILE).write_text(manifest.sealed().to_json())


def _with_quality(manifest: Manifest, root: Path, held_out: anndata.AnnData) -> Manifest:
    """The manifest with each preset's quality on the cells to report on, by the embedded engine."""
    report = held_out[held_out.obs["part"] == "report"]
    report = report[:: -(-report.n_obs // _CELLS_TO_MEASURE) or 1].to_memory()
    if not report.n_obs:
        return manifest
    real = report.X.toarray()
    labels = np.asarray(report.obs[_cell_type_like(manifest)].astype(str))
    presets = {}
    with Generator.open(root) as generator:
        for name, preset in manifest.presets.items():
            generated = generator.reconstruct(report, preset=name, expression="log1p").X
            quality = {"pcc": pearson(real, generated), "mse": mean_squared_error(real, generated)}
            quality |= sample_quality(real, generated, labels)
            rounded = {measure: round(value, 4) for measure, value in quality.items()}
            presets[name] = Preset(solver=preset.solver, quality=rounded | {"cells": report.n_obs})
    return manifest.model_copy(update={"presets": presets})


def _cell_type_like(manifest: Manifest) -> str:
    """The concept within whose labels samples are compared: the first with ``type`` in its name, else the finest."""
    types = [concept for concept in manifest.concepts if "type" in concept.name.lower()]
    return types[0].name if types else max(manifest.concepts, key=lambda concept: len(concept.labels)).name
