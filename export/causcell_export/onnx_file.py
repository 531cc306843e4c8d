"""A PyTorch module written as an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from causcell_export.graphs import Graph

OPSET = 20
"""Read by ONNX Runtime 1.17 and newer, and so by Triton 24.03 and newer."""

IR_VERSION = 9

TRACE_BATCH = 7
"""An odd batch: exporters take a batch of 1 for a constant."""


def write_onnx(graph: Graph, example: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph with a dynamic batch axis.

    Parameters
    ----------
    example
        Inputs for a batch of `TRACE_BATCH` cells.
    metadata
        Written to ``metadata_props``.
    """
    batch = torch.export.Dim("batch")
    inputs = tuple(torch.from_numpy(example[name]) for name in graph.info.inputs)
    with _quiet():
        program = torch.onnx.export(
            graph.module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            input_names=list(graph.info.inputs),
            output_names=list(graph.info.outputs),
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        del node.metadata_props[:]  # source lines of this machine
        node.doc_string = ""
    tensors: list[Any] = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for value in tensors:
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its notices about packages that are not needed to itself."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
