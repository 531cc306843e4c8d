"""The run folder: all that export and evaluation need of a trained model, so that they take no data.

::

    run.json               concepts, graph, panel, normalisation, digests of training cells, provenance, versions
    config.toml            all settings, to be given to --config again
    weights.safetensors    the moving average of the weights
    reference.npz          embeddings of the reference cells that interventions draw from
    held_out.h5ad          held-out cells: panel expression (log scale), labels, part (choose or report)
    split.csv              part of every cell
    metrics.csv            every term of the objective, by step and epoch
    checkpoints/           to resume from; gone when training has finished
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.errors import RunError
from causcell.preprocessing import Preprocessing
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells
from causcell_training.config import TrainConfig
from causcell_training.model import CausCell

if TYPE_CHECKING:
    import anndata

RUN_FILE = "run.json"
WEIGHTS_FILE = "weights.safetensors"
REFERENCE_FILE = "reference.npz"
HELD_OUT_FILE = "held_out.h5ad"
SPLIT_FILE = "split.csv"
CONFIG_FILE = "config.toml"
METRICS_FILE = "metrics.csv"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes
    ----------
    path
        The folder.
    config
        Settings.
    model
        With the trained weights, in evaluation mode.
    training_cells
        Digests of the cells trained on.
    provenance, versions
        How and with what it was trained.
    """

    path: Path
    config: TrainConfig
    model: CausCell
    training_cells: TrainingCells
    provenance: dict[str, Any]
    versions: dict[str, str]

    @property
    def reference(self) -> ReferenceCells:
        """Reference cells that interventions draw from."""
        return ReferenceCells.load(self.path / REFERENCE_FILE)

    def held_out(self) -> anndata.AnnData:
        """Held-out cells, with panel expression on the log scale and ``obs["part"]``; raises `RunError`."""
        import anndata

        try:
            return anndata.read_h5ad(self.path / HELD_OUT_FILE)
        except (OSError, KeyError, ValueError) as error:
            raise RunError(f"{self.path / HELD_OUT_FILE} can't be read: {error}; train again") from error

    def save(self) -> None:
        """Write ``run.json`` and the weights."""
        schema, preprocessing = self.model.schema, self.model.preprocessing
        fields = {
            "config": self.config.model_dump(mode="json"),
            "concepts": [asdict(concept) for concept in schema.concepts],
            "edges": [asdict(edge) for edge in schema.edges],
            "genes": preprocessing.genes,
            "scale": preprocessing.scale,
            "normalisation_genes": preprocessing.normalisation_genes,
            "mean": [float(str(value)) for value in preprocessing.mean],
            "deviation": [float(str(value)) for value in preprocessing.deviation],
            "training_cells": self.training_cells.model_dump(),
            "provenance": self.provenance,
            "versions": self.versions,
        }
        save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, self.path / WEIGHTS_FILE)
        (self.path / RUN_FILE).write_text(json.dumps(fields, indent=1) + "\n")  # last: its presence says finished

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a finished run; raises `RunError` if the folder holds none."""
        root = Path(path)
        if not (root / RUN_FILE).is_file():
            unfinished = (root / CHECKPOINTS).is_dir()
            remedy = "training has not finished: continue it with --resume" if unfinished else "train first"
            raise RunError(f"{os.fspath(path)!r} holds no finished training run (no {RUN_FILE}); {remedy}")
        try:
            fields = json.loads((root / RUN_FILE).read_text())
            config = TrainConfig.model_validate(fields["config"])
            schema = ConceptSchema(
                tuple(Concept(c["name"], tuple(c["labels"]), c["kind"]) for c in fields["concepts"]),
                tuple(Edge(**edge) for edge in fields["edges"]),
            )
            preprocessing = Preprocessing(
                tuple(fields["genes"]),
                fields["scale"],
                tuple(fields["normalisation_genes"]),
                np.array(fields["mean"], dtype=np.float32),
                np.array(fields["deviation"], dtype=np.float32),
            )
            model = CausCell(schema, preprocessing, config.model)
            model.load_state_dict(load_file(root / WEIGHTS_FILE))
            training_cells = TrainingCells.model_validate(fields["training_cells"])
            return cls(root, config, model.eval(), training_cells, fields["provenance"], fields["versions"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise RunError(f"the run in {os.fspath(path)!r} can't be read: {error}; train again") from error
