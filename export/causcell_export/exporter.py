"""Export: from a training run to a verified model repository."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from causcell._internal.digests import file_digest
from causcell._internal.files import new_folder
from causcell.bench.workload import BATCH_SIZE, Workload
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import ConfigurationError, format_list
from causcell.evaluation.metrics import mean_squared_error, pearson, sample_quality
from causcell.generator import Generator
from causcell.preprocessing import TARGET_SUM, gene_digest
from causcell.repository.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    SCHEMA_VERSION,
    Dimensions,
    ExpressionInfo,
    GenePanel,
    GraphInfo,
    Manifest,
    Parity,
    Preset,
)
from causcell.repository.served import REFERENCE_CONFIG, REFERENCE_MODEL, manifest_parameter
from causcell_export.graphs import example_inputs, graphs, lowered_graphs
from causcell_export.onnx_file import OPSET, TRACE_BATCH, matrix_products, write_chunks, write_onnx
from causcell_export.torchscript import write_torchscript
from causcell_export.triton_config import graph_parameters, reference_config, triton_config
from causcell_export.verification import BATCHES, verify_onnx, verify_torchscript
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata

_REGRESSION_PRESETS = {
    "mean": SolverSettings("mean"),
    "balanced": SolverSettings("dpmpp", steps=20),
    "accurate": SolverSettings("ddpm", steps=250),
}


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
"""Presets by head; which is the default, `default_preset` says."""


PRECISIONS = ("fp32", "fp16")


_CELLS = {"choose": 256, "report": 1024}


_SEEDS = range(3)


_SECONDS = 0.2


def export(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    torchscript: bool = False,
) -> Path:
    """Write a model repository, verified against the trained model on its held-out cells.

    It is made beside ``out`` and renamed to it when everything holds; an export that fails writes nothing.

    Parameters
    ----------
    run
        A finished run, or its folder.
    out
        Folder of the repository.
    precision
        ``fp32``; or ``fp16``, for GPUs: the denoiser's matrix products at half precision.
    torchscript
        Also write each graph as ``<graph>_torchscript`` for Triton's PyTorch backend.

    Returns
    -------
    The repository's path.

    Raises
    ------
    ConfigurationError
        Another precision.
    ExportVerificationError
        An exported graph differs from the trained model.
    RunError
        The run can't be used.
    OutputExistsError
        Something is at ``out``.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision {precision!r} is not known; known are {format_list(PRECISIONS)}")
    run = run if isinstance(run, Run) else Run.load(run)
    held_out = run.held_out()
    with new_folder(out) as staging:
        parity = _write_graphs(run, held_out.X.toarray(), staging, precision, torchscript)
        run.reference.save(staging / REFERENCE_FILE)
        write_chunks((staging / REFERENCE_FILE).read_bytes(), staging / REFERENCE_MODEL / "1" / "model.onnx")
        manifest = _manifest(run, staging, parity).model_copy(update={"precision": precision})
        _write_manifest(manifest, staging)
        _write_manifest(_with_quality(manifest, staging, held_out), staging)
    return Path(out)


def _write_graphs(run: Run, expression: np.ndarray, root: Path, precision: str, torchscript: bool) -> dict[str, Parity]:
    stamp = {
        "causcell.gene_digest": gene_digest(run.model.preprocessing.genes),
        "causcell.schema_version": str(SCHEMA_VERSION),
    }
    inputs = {batch: example_inputs(run.model, expression, batch) for batch in {*BATCHES, TRACE_BATCH}}
    trained = graphs(run.model)
    parity = {}
    for name, graph in (trained if precision == "fp32" else lowered_graphs(run.model)).items():
        expected = replace(graph, module=trained[name].module)
        examples = {batch: inputs[batch][name] for batch in BATCHES}
        path = root / name / "1" / "model.onnx"
        write_onnx(graph, inputs[TRACE_BATCH][name], path, stamp)
        _write_configs(name, graph.info, path)
        parity[name] = verify_onnx(name, expected, path, examples)
        if torchscript:
            twin = f"{name}_torchscript"
            path = root / twin / "1" / "model.pt"
            write_torchscript(graph, inputs[TRACE_BATCH][name], path)
            _write_configs(twin, graph.info, path, "pytorch")
            parity[twin] = verify_torchscript(twin, expected, path, examples)
    return parity


def _write_configs(
    name: str, info: GraphInfo, file: Path, backend: Literal["onnxruntime", "pytorch"] = "onnxruntime"
) -> None:
    """``config.pbtxt``, for CPUs; and ``configs/gpu.pbtxt``, which ``--model-config-name=gpu`` chooses."""
    folder, parameters = file.parents[1], graph_parameters(file_digest(file))
    (folder / "config.pbtxt").write_text(triton_config(name, info, parameters=parameters, backend=backend))
    (folder / "configs").mkdir()
    (folder / "configs" / "gpu.pbtxt").write_text(
        triton_config(name, info, parameters=parameters, backend=backend, device="gpu")
    )


def _manifest(run: Run, root: Path, parity: dict[str, Parity]) -> Manifest:
    model, preprocessing = run.model, run.model.preprocessing
    infos = {
        name: graph.info.model_copy(update={"products": matrix_products(root / name / "1" / "model.onnx")})
        for name, graph in graphs(model).items()
    }
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
        graphs=infos,
        parity=parity,
        files={path.relative_to(root).as_posix(): file_digest(path) for path in files},
        training_cells=run.training_cells,
        provenance=run.provenance,
        versions=run.versions | {"onnx": metadata.version("onnx"), "opset": str(OPSET)},
    )


def _write_manifest(manifest: Manifest, root: Path) -> None:
    """``manifest.json``, and the configuration that carries it to clients of a server."""
    text = manifest.sealed().to_json()
    (root / MANIFEST_FILE).write_text(text)
    size = (root / REFERENCE_FILE).stat().st_size
    (root / REFERENCE_CONFIG).write_text(reference_config(manifest_parameter(json.loads(text)), size))


def _with_quality(manifest: Manifest, root: Path, held_out: anndata.AnnData) -> Manifest:
    """The manifest with each preset's quality and speed by the embedded engine, and the default that follows."""
    with Generator.open(root) as generator:
        choose, report = (_measured(generator, held_out[held_out.obs["part"] == part], part) for part in _CELLS)
    with Generator.open(root, threads=1) as generator:
        workload = Workload(generator)
        speed = {name: workload.latency(name, BATCH_SIZE, _SECONDS)["cells_per_second"] for name in manifest.presets}
    presets = {}
    for name, preset in manifest.presets.items():
        quality = {measure: round(float(np.mean(values)), 4) for measure, values in report.get(name, {}).items()}
        presets[name] = Preset(solver=preset.solver, quality=quality or None)
    default = default_preset(
        {name: preset.solver.steps for name, preset in manifest.presets.items()},
        {name: values.get("energy_distance") for name, values in choose.items()},
    )
    return manifest.model_copy(update={"presets": presets, "default_preset": default, "speed": speed})


def _measured(generator: Generator, cells: anndata.AnnData, part: str) -> dict[str, dict[str, list[float]]]:
    """Each preset's measures, one value a seed, on some cells of a part of those held out; none if it is empty."""
    cells = cells[:: -(-cells.n_obs // _CELLS[part]) or 1].to_memory()
    if not cells.n_obs:
        return {}
    real = cells.X.toarray()
    labels = np.asarray(cells.obs[generator.schema.cell_type_like].astype(str))
    measured: dict[str, dict[str, list[float]]] = {}
    for name in generator.manifest.presets:
        values = measured.setdefault(name, {})
        for seed in _SEEDS:
            generated = generator.reconstruct(cells, preset=name, expression="log1p", seed=seed).X
            quality = {"pcc": pearson(real, generated), "mse": mean_squared_error(real, generated)}
            quality |= sample_quality(real, generated, labels) | {"cells": cells.n_obs}
            for measure, value in quality.items():
                values.setdefault(measure, []).append(value)
    return measured


def default_preset(steps: Mapping[str, int], distances: Mapping[str, Sequence[float] | None]) -> str:
    """The cheapest preset whose energy distance is no worse than that of ``accurate``, by twice the noise of seeds.

    Parameters
    ----------
    steps
        Network evaluations of each preset; the first of equals goes first.
    distances
        Energy distance of each preset, a value a seed; `None` where too few cells were held out to tell, and then the
        cheapest is taken.
    """
    names = sorted(steps, key=lambda name: steps[name])
    best = distances.get("accurate")
    if best is None:
        return names[0]
    for name in names:
        found = distances[name]
        if found is not None:
            noise = np.hypot(np.std(found, ddof=1), np.std(best, ddof=1))
            if np.mean(found) - np.mean(best) <= 2 * noise:
                return name
    return "accurate"
