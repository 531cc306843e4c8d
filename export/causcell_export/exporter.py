"""From a training run to a verified model repository."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from causcell._deprecation import warn_deprecated
from causcell._internal.collection_pause import pause_collection
from causcell._internal.digests import file_digest
from causcell._internal.files import local_path, new_folder
from causcell._internal.stages import Report, show_stages
from causcell.errors import ConfigurationError, format_list
from causcell.preprocessing import gene_digest
from causcell.repository.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    SLAB,
    GraphInfo,
    Manifest,
    Parity,
    Preset,
    needed_version,
)
from causcell.repository.served import CARRIER_CONFIG, CARRIER_MODEL, manifest_parameter
from causcell_export.effect_errors import with_effect_errors
from causcell_export.graphs import example_inputs, graphs, lowered_graphs
from causcell_export.joined_graphs import join_slab
from causcell_export.judging import with_verdicts
from causcell_export.onnx_file import matrix_products, write_chunks, write_onnx, write_part, write_sampler
from causcell_export.quality import with_quality
from causcell_export.torchscript import write_torchscript
from causcell_export.translation import OPSET, TRACE_BATCH, translate
from causcell_export.triton_config import CpuSettings, graph_parameters, reference_config, triton_config
from causcell_export.verification import BATCHES, verify_onnx, verify_torchscript
from causcell_training.heads import head_class, known_heads
from causcell_training.run import Run
from causcell_training.torch_defaults import own_threads, own_torch_defaults

PRECISIONS = ("fp32", "fp16")
"""Precisions of the denoiser's matrix products."""


def export(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    torchscript: bool = False,
    instances: int = 1,
    threads_per_instance: int | None = None,
    unfinished: bool = False,
    progress: bool | Report = False,
) -> Path:
    """Export a trained run to a model repository, verified against the trained model on its held-out cells.

    It is made beside ``out`` and renamed to it when everything holds; an export that fails writes nothing. The
    ONNX files of two exports of a run are the same, byte for byte.

    Parameters
    ----------
    run
        A run, or its folder.
    out
        Folder of the repository.
    precision
        Precision of the denoiser's matrix products: ``fp32``; or ``fp16``, for GPUs.
    torchscript
        Also write each graph as ``<graph>_torchscript`` for Triton's PyTorch backend.
    instances
        Copies of each model that a server on CPUs runs.
    threads_per_instance
        Compute threads of each copy; 1 where there are several, and else as the server is told, if not given.
    unfinished
        Of a run that has not finished take the best model so far; the manifest's provenance says so.
    progress
        Print each stage to standard error as it begins; or a function to call with it.

    Returns
    -------
    The repository's path.

    Raises
    ------
    ConfigurationError
        An unknown precision, or numbers of instances or threads that can't be.
    ExportVerificationError
        An exported graph differs from the trained model.
    RunError
        The run can't be used.
    OutputExistsError
        Something is at ``out``.

    Examples
    --------
    A model of 40 simulated cells, trained for a moment:

    >>> import anndata, numpy, pathlib, tempfile
    >>> from causcell import Generator
    >>> from causcell_training import fit
    >>> from causcell_training.config import load_config
    >>> counts = numpy.random.default_rng(0).poisson(2.0, size=(40, 12)).astype("float32")
    >>> cells = anndata.AnnData(counts)
    >>> cells.obs["stim"] = ["ctrl", "stim"] * 20
    >>> config = load_config(
    ...     overrides={"concept": ["stim"], "genes": "all", "model.blocks": 1, "optimisation.epochs": 1}
    ... )
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> run = fit(cells, folder / "run", config=config)
    >>> with Generator.open(export(run, folder / "models")) as generator:
    ...     generator.counterfactual(cells, do={"stim": "stim"}).shape
    (40, 12)
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision={precision!r} is not known; known are {format_list(PRECISIONS)}")
    threads = 1 if threads_per_instance is None and instances > 1 else threads_per_instance
    cpu = CpuSettings(instances, threads)
    out = local_path(out)
    with show_stages(progress) as report:
        report("reading the run")
        with pause_collection():  # both import large packages
            run = run if isinstance(run, Run) else Run.load(run, unfinished=unfinished)
        _write_repository(run, out, precision, torchscript, cpu, report)
    return out


def _write_repository(run: Run, out: Path, precision: str, torchscript: bool, cpu: CpuSettings, report: Report) -> None:
    """Write graphs, reference cells and the manifest with all that is measured, or nothing."""
    held_out = run.held_out()
    with new_folder(out) as staging, own_torch_defaults(), own_threads():
        parity = _write_graphs(run, held_out.X.toarray(), staging, precision, torchscript, cpu, report)
        run.reference.save(staging / REFERENCE_FILE)
        write_chunks((staging / REFERENCE_FILE).read_bytes(), staging / CARRIER_MODEL / "1" / "model.onnx")
        manifest = _describe_model(run, staging, parity).model_copy(update={"precision": precision})
        _write_manifest(manifest, staging)
        manifest = with_quality(manifest, staging, held_out, report=report)
        report("measuring errors of effects")
        manifest = with_effect_errors(manifest, staging, held_out)
        report("judging concepts")
        _write_manifest(with_verdicts(manifest, staging, held_out), staging)


def _write_graphs(
    run: Run,
    expression: np.ndarray,
    root: Path,
    precision: str,
    torchscript: bool,
    cpu: CpuSettings,
    report: Report,
) -> dict[str, Parity]:
    """Write every graph with its configurations, and verify it; return what was measured, by name."""
    stamp = {
        "causcell.gene_digest": gene_digest(run.model.preprocessing.genes),
        "causcell.schema_version": str(needed_version(run.model.schema, run.training_cells)),
    }
    inputs = {batch: example_inputs(run.model, expression, batch) for batch in {*BATCHES, TRACE_BATCH}}
    trained = graphs(run.model)
    written = trained if precision == "fp32" else lowered_graphs(run.model)
    drawing = None
    parity = {}
    for name, graph in written.items():
        expected = replace(graph, module=trained[name].module)
        examples = {batch: inputs[batch][name] for batch in BATCHES}
        path = root / name / "1" / "model.onnx"
        report(f"writing and verifying {name}")
        if name == "sampler":
            write_sampler(graph, root / "denoiser" / "1" / "model.onnx", path, stamp)
        elif SLAB in written and name in ("decoder", SLAB):  # in this order
            drawing = drawing or translate(join_slab(graph, written[SLAB]), inputs[TRACE_BATCH][name])
            write_part(drawing, graph, path, stamp)
        else:
            write_onnx(graph, inputs[TRACE_BATCH][name], path, stamp)
        _write_configs(name, graph.info, path, cpu)
        parity[name] = verify_onnx(name, expected, path, examples)
        if torchscript:
            twin = f"{name}_torchscript"
            path = root / twin / "1" / "model.pt"
            write_torchscript(graph, inputs[TRACE_BATCH][name], path)
            _write_configs(twin, graph.info, path, cpu, "pytorch")
            parity[twin] = verify_torchscript(twin, expected, path, examples)
    return parity


def _write_configs(
    name: str, info: GraphInfo, file: Path, cpu: CpuSettings, backend: Literal["onnxruntime", "pytorch"] = "onnxruntime"
) -> None:
    """Write ``config.pbtxt`` for CPUs and ``configs/gpu.pbtxt``, which a server started with that name chooses."""
    folder, parameters = file.parents[1], graph_parameters(file_digest(file))
    (folder / "config.pbtxt").write_text(triton_config(name, info, parameters=parameters, backend=backend, cpu=cpu))
    (folder / "configs").mkdir()
    (folder / "configs" / "gpu.pbtxt").write_text(
        triton_config(name, info, parameters=parameters, backend=backend, device="gpu")
    )


def _describe_model(run: Run, root: Path, parity: dict[str, Parity]) -> Manifest:
    """Describe the model and the files written so far; the quality of presets is not measured yet."""
    model = run.model
    infos = {
        name: graph.info.model_copy(update={"products": matrix_products(root / name / "1" / "model.onnx")})
        for name, graph in graphs(model).items()
    }
    presets = model.denoiser.head.presets
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return Manifest(
        schema_version=needed_version(model.schema, run.training_cells),
        **run.description.manifest_parts(model.config.embedding),
        schedule=model.schedule,
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
    """Write ``manifest.json``, and the configuration that carries it to clients of a server."""
    text = manifest.sealed().to_json()
    (root / MANIFEST_FILE).write_text(text)
    size = (root / REFERENCE_FILE).stat().st_size
    (root / CARRIER_CONFIG).write_text(reference_config(manifest_parameter(json.loads(text)), size))


def __getattr__(name: str) -> Any:
    if name == "PRESETS":
        warn_deprecated("causcell_export.exporter.PRESETS", "causcell_training.heads.head_class().presets")
        return {head: head_class(head).presets for head in known_heads()}
    raise AttributeError(f"module 'causcell_export.exporter' has no attribute {name!r}")
