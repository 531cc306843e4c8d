"""Check that the parts of a manifest agree with each other: each may be well formed and all together make no model."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from causcell.diffusion.sampling import POSTERIOR_OUTPUTS
from causcell.errors import format_list
from causcell.repository.names import (
    ABDUCTION,
    EXPRESSION_FLOAT16,
    INFORMED,
    PRIOR,
    REFERENCE_FILE,
    SLAB,
    logits_name,
    value_name,
)

Manifest = Any
"""`causcell.repository.manifest.Manifest`: its module imports this one."""

_LONGEST_SCHEDULE = 100_000
"""Timesteps of a schedule at most; the usual are 1,000, and arrays of this length are made."""

_LARGEST_AXIS = 2**24
"""Length of an axis of a tensor at most."""

_SMALLEST_DEVIATION = float(np.finfo(np.float32).tiny)
"""Deviations are float32, of which smaller ones are 0 or nearly so."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GRAPH_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_MODEL_FILE = re.compile(r"(?P<model>\w+)/(1/model\.onnx|1/model\.pt|config\.pbtxt|configs/\w+\.pbtxt)", re.ASCII)

_REQUIRED_GRAPHS = ("encoder_scm", "scm", "denoiser", "sampler")


def check_consistency(manifest: Manifest) -> None:
    """Check a manifest whose fields are each of the right form.

    Raises
    ------
    ValueError
        Two parts contradict each other, or a number can't be; the message names them.
    CausCellError
        Concepts, graph or a preset's solver are not usable.
    """
    _check_genes(manifest)
    _check_concepts(manifest)
    _check_solvers(manifest)
    _check_graphs(manifest)
    _check_files(manifest)
    manifest.training_cells.check()
    _check_verdicts(manifest)


def _check_verdicts(manifest: Manifest) -> None:
    judged = [each.title for each in manifest.verdicts]
    _check_unique(judged, "verdicts")
    names = [concept.name for concept in manifest.concepts]
    strange = [each.concept for each in manifest.verdicts if each.concept not in names]
    if strange:
        raise ValueError(f"verdicts has {strange[0]!r}, which is no concept; concepts are {format_list(names)}")


def _check_genes(manifest: Manifest) -> None:
    panel, expression = manifest.genes.names, manifest.expression
    if not panel:
        raise ValueError("genes.names is empty")
    _check_unique(panel, "genes.names")
    _check_unique(expression.normalisation_genes, "expression.normalisation_genes")
    for name, length in {
        "dimensions.genes": manifest.dimensions.genes,
        "expression.mean": len(expression.mean),
        "expression.deviation": len(expression.deviation),
    }.items():
        if length != len(panel):
            raise ValueError(f"{name} is for {length} genes, genes.names has {len(panel)}")
    if not min(expression.deviation) >= _SMALLEST_DEVIATION:
        raise ValueError(
            f"expression.deviation has {min(expression.deviation)}; deviations are at least {_SMALLEST_DEVIATION:g}"
        )
    largest = max(map(abs, (*expression.mean, *expression.deviation)))
    if largest > float(np.finfo(np.float32).max):
        raise ValueError(f"expression.mean or expression.deviation has {largest}, more than a float32 holds")
    counts = expression.scale == "counts"
    if counts and (expression.target_sum is None or not 0 < expression.target_sum < math.inf):
        raise ValueError(f"expression.target_sum is {expression.target_sum}; for counts it is a number above 0")
    if counts and not expression.normalisation_genes and expression.totals is None:
        raise ValueError("expression.normalisation_genes is empty; for counts a cell's total is taken over them")
    if expression.totals is not None and (not counts or expression.normalisation_genes):
        raise ValueError("expression.totals is given; it is for counts, and in place of normalisation_genes")


def _check_concepts(manifest: Manifest) -> None:
    schema, dimensions = manifest.concept_schema, manifest.dimensions
    if dimensions.concepts != len(schema.concepts):
        raise ValueError(f"dimensions.concepts is {dimensions.concepts}, concepts has {len(schema.concepts)}")
    if not 1 <= dimensions.embedding <= _LARGEST_AXIS:
        raise ValueError(f"dimensions.embedding is {dimensions.embedding}; it is at least 1")
    for edge in manifest.edges:
        if not math.isfinite(edge.weight):
            raise ValueError(f"edge {edge.parent}:{edge.child} has weight {edge.weight}; weights are finite")


def _check_solvers(manifest: Manifest) -> None:
    if manifest.schedule.timesteps > _LONGEST_SCHEDULE:
        raise ValueError(f"schedule.timesteps is {manifest.schedule.timesteps:.4g}; it is at most {_LONGEST_SCHEDULE}")
    if manifest.default_preset not in manifest.presets:
        raise ValueError(
            f"default_preset is {manifest.default_preset!r}, which presets lacks; it has "
            f"{format_list(manifest.presets)}"
        )
    _check_known(manifest.speed, manifest.presets, "speed", "presets")
    alpha_bar = manifest.schedule.alpha_bar
    if not (np.isfinite(alpha_bar).all() and (np.diff(alpha_bar) < 0).all()):
        raise ValueError(f"schedule {manifest.schedule.kind} of {manifest.schedule.timesteps} steps does not fall")
    for name, preset in manifest.presets.items():
        if not np.isfinite(preset.solver.build(manifest.schedule).table).all():
            raise ValueError(f"presets.{name} has a solver whose coefficients are not finite")


def _check_graphs(manifest: Manifest) -> None:
    for name, info in manifest.graphs.items():
        if not _GRAPH_NAME.fullmatch(name):
            raise ValueError(f"graphs has {name!r}; names are letters, digits and _")
        for tensor, stated in (*info.inputs.items(), *info.outputs.items()):
            if not all(size == -1 or 0 < size <= _LARGEST_AXIS for size in stated.shape):
                raise ValueError(f"graphs.{name} has {tensor!r} of shape {list(stated.shape[:8])}")
        if not all(0 < size <= _LARGEST_AXIS for product in info.products for size in product):
            raise ValueError(f"graphs.{name} has a product of a size below 1")
        if not info.inputs or not info.outputs:
            raise ValueError(f"graphs.{name} has no inputs or no outputs")
    absent = [name for name in _REQUIRED_GRAPHS if name not in manifest.graphs]
    if absent:
        raise ValueError(f"graphs lacks {format_list(absent)}")
    genes = ("float32", (manifest.dimensions.genes,))
    concept = ("float32", (manifest.dimensions.concepts + 1, manifest.dimensions.embedding))
    told = {logits_name(each.name): ("float32", (len(each.labels),)) for each in manifest.concepts}
    numbers = [each.name for each in manifest.concepts if each.value is not None and each.value.is_number]
    told |= {value_name(name): ("float32", (1,)) for name in numbers}
    known = {"labels": ("int64", (manifest.dimensions.concepts,))}
    if (schema := manifest.concept_schema).has_values:
        known = {"values": ("float32", (schema.value_slices[-1].stop,))}
        if PRIOR not in manifest.graphs:
            raise ValueError(f"graphs lacks {PRIOR!r}, which concepts with values have")
    observed = ("float32", (manifest.dimensions.concepts, manifest.dimensions.embedding))
    table, half = ("float32", (-1, 5)), ("float16", genes[1])
    forced = {"exogenous": concept, "forced": concept, "mask": ("float32", concept[1][:1])}
    encoded = {"exogenous_mean": concept, "exogenous_logvar": concept, "endogenous": concept}
    expected = {
        "encoder_scm": ({"expression": genes}, encoded),
        ABDUCTION: ({"exogenous": concept, **known}, {INFORMED: concept}),
        PRIOR: (known, {"mean": observed, "logvar": observed}),
        "scm": (forced, {"endogenous": concept, **told}),
        "denoiser": ({"x_t": genes, "timestep": ("int64", (1,)), "endogenous": concept}, {"x0": genes}),
        "sampler": ({"endogenous": concept, "noise": genes, "solver": table}, {"expression": genes}),
        "decoder": ({"endogenous": concept, "uniforms": genes}, {"expression": genes}),
        SLAB: ({"endogenous": concept}, dict.fromkeys(POSTERIOR_OUTPUTS, genes)),
    }
    for name, info in manifest.graphs.items():
        if name == PRIOR and not schema.has_values:
            raise ValueError(f"graphs has {PRIOR!r}, and no concept has values")
        if name in expected:
            _check_signature(name, info, *expected[name], optional={EXPRESSION_FLOAT16: half})
    _check_known(manifest.parity, {*manifest.graphs, *_twins(manifest)}, "parity", "graphs")


def _check_signature(
    name: str,
    info: Any,
    inputs: Mapping[str, tuple[str, tuple[int, ...]]],
    outputs: Mapping[str, tuple[str, tuple[int, ...]]],
    optional: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Check a graph's tensors against the model's dimensions; outputs beside the needed ones are a head's own."""
    stated_inputs = {each: (tensor.dtype, tensor.shape) for each, tensor in info.inputs.items()}
    stated_outputs = {each: (tensor.dtype, tensor.shape) for each, tensor in info.outputs.items()}
    if set(stated_inputs) != set(inputs):
        raise ValueError(
            f"graphs.{name} takes {format_list(stated_inputs)}, where a model's takes {format_list(inputs)}"
        )
    needed = {**inputs, **outputs, **{each: form for each, form in optional.items() if each in stated_outputs}}
    for tensor, form in needed.items():
        stated = stated_inputs.get(tensor) if tensor in inputs and tensor not in outputs else stated_outputs.get(tensor)
        if stated != form:
            found = f"{stated[0]} {list(stated[1])}" if stated else "nothing"
            raise ValueError(
                f"graphs.{name} states {found} for {tensor!r}, where the model's dimensions make it {form[0]} "
                f"{list(form[1])}"
            )


def _twins(manifest: Manifest) -> set[str]:
    """Return the names of the same graphs for Triton's PyTorch backend."""
    return {f"{name}_torchscript" for name in manifest.graphs}


def _check_files(manifest: Manifest) -> None:
    models = {*manifest.graphs, *_twins(manifest), "reference"}
    for name, digest in manifest.files.items():
        match = _MODEL_FILE.fullmatch(name)
        if name != REFERENCE_FILE and not (match and match["model"] in models):
            raise ValueError(f"files lists {name[:200]!r}, which is no file of a model repository")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"files has {digest[:80]!r} for {name!r}, which is no SHA-256")


def _check_unique(names: Collection[str], what: str) -> None:
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{what} has {twice[:80]!r} twice")


def _check_known(names: Collection[str], known: Collection[str], what: str, of: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{what} has {format_list(unknown)}, which {of} lacks")
