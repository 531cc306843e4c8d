"""Exported models that tests share, and how their files are read."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from causcell_export import export, exporter
from causcell_training import Run

GRAPHS = ("encoder_scm", "scm", "abduction", "denoiser", "decoder", "slab", "sampler")
"""Graphs of the default head's model."""


def export_unmeasured(run: Run, out: Path, **options: Any) -> Path:
    """Export a run, verified, without what takes a third of the time: quality and speed of each preset, verdicts."""
    with pytest.MonkeyPatch.context() as patch:
        for measuring in ("with_quality", "with_verdicts"):
            patch.setattr(exporter, measuring, lambda manifest, root, held_out, **_: manifest)
        return export(run, out, **options)


def read_config(repository: Path, graph: str, file: str = "config.pbtxt") -> triton.ModelConfig:
    """Read Triton's configuration of a model; typed: an unknown field or value raises."""
    return text_format.Parse((repository / graph / file).read_text(), triton.ModelConfig())
