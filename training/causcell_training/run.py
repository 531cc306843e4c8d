"""A finished training run, as its folder holds it; `causcell_training.run_folder` lists the files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from causcell._deprecation import moved_names
from causcell.errors import CausCellError, RunError, format_list
from causcell.repository.description import ModelDescription
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells
from causcell_training.config import TrainConfig
from causcell_training.model import CausCell
from causcell_training.run_folder import CHECKPOINTS, HELD_OUT_FILE, REFERENCE_FILE, RUN_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training run: the trained model, and what it was trained on and how.

    Attributes
    ----------
    path
        The run folder.
    config
        Settings.
    model
        The model with its trained weights, in evaluation mode.
    training_cells
        Digests of the names of the cells trained on.
    provenance
        How the model was trained: time, epochs, steps, device, numbers of cells, measures on the test rows.
    versions
        Versions of the packages that trained it.
    """

    path: Path
    config: TrainConfig
    model: CausCell
    training_cells: TrainingCells
    provenance: dict[str, Any]
    versions: dict[str, str]

    @property
    def description(self) -> ModelDescription:
        """Description of the model, as ``run.json`` and a manifest store it."""
        return ModelDescription.of(self.model.schema, self.model.preprocessing)

    @property
    def reference(self) -> ReferenceCells:
        """Reference cells that interventions draw from; raises `CorruptFileError` if they can't be read."""
        return ReferenceCells.load(self.path / REFERENCE_FILE)

    def held_out(self) -> anndata.AnnData:
        """Read the held-out cells.

        Returns
        -------
        AnnData
            Panel expression of the validation and test rows (log scale, float32 CSR [cells x G]), their labels in
            ``obs``, and in ``obs["part"]`` ``choose`` for a validation row, ``report`` for a test row.

        Raises
        ------
        RunError
            The file is missing or damaged.
        """
        import anndata

        try:
            return anndata.read_h5ad(self.path / HELD_OUT_FILE)
        except (OSError, KeyError, ValueError) as error:
            raise RunError(f"{self.path / HELD_OUT_FILE} can't be read: {error}; train again") from error

    def save(self) -> None:
        """Write the weights, then ``run.json``, whose presence says that the run has finished."""
        fields = {
            "config": self.config.model_dump(mode="json"),
            **self.description.model_dump(mode="json"),
            "training_cells": self.training_cells.model_dump(),
            "provenance": self.provenance,
            "versions": self.versions,
        }
        save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, self.path / WEIGHTS_FILE)
        (self.path / RUN_FILE).write_text(json.dumps(fields, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a finished run.

        Parameters
        ----------
        path
            The run folder.

        Raises
        ------
        RunError
            The folder holds no finished run, or one that can't be read.

        Examples
        --------
        >>> Run.load("no_such_folder")
        Traceback (most recent call last):
        causcell.errors.RunError: 'no_such_folder' holds no finished training run (no run.json); train first
        """
        root = Path(path)
        if not (root / RUN_FILE).is_file():
            unfinished = (root / CHECKPOINTS).is_dir()
            remedy = "training has not finished: continue it with resume=True" if unfinished else "train first"
            raise RunError(f"{os.fspath(path)!r} holds no finished training run (no {RUN_FILE}); {remedy}")
        try:
            fields = json.loads((root / RUN_FILE).read_text())
            config = TrainConfig.model_validate(fields["config"])
            description = ModelDescription.model_validate(
                {name: fields[name] for name in ModelDescription.model_fields if name in fields}
            )
            model = CausCell(description.concept_schema, description.preprocessing, config.model)
            model.load_state_dict(load_file(root / WEIGHTS_FILE))
            training_cells = TrainingCells.model_validate(fields["training_cells"])
            return cls(root, config, model.eval(), training_cells, fields["provenance"], fields["versions"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, CausCellError) as error:
            raise RunError(f"the run in {os.fspath(path)!r} can't be read: {error}; train again") from error

    def summary(self) -> dict[str, str]:
        """Summarise the run for people: what it was trained on, its concepts and edges, its measures on test rows."""
        schema, cells = self.model.schema, self.provenance["cells"]
        held_out = f"{cells['choose']} validation and {cells['report']} test cells"
        if measures := self.provenance["held_out"]:
            held_out += f"; mean estimate of test cells: PCC {measures['pcc']:.3f}, MSE {measures['mse']:.3f}"
        return {
            "trained on": f"{cells['train']} cells x {len(self.model.preprocessing.genes)} genes",
            "concepts": "; ".join(f"{each.name}: {format_list(each.labels)}" for each in schema.concepts),
            "edges": ", ".join(f"{edge.parent}:{edge.child}" for edge in schema.edges) or "none",
            "epochs": f"{self.provenance['epochs']} in {self.provenance['seconds']:.0f} s",
            "held out": held_out,
        }

    def __repr__(self) -> str:
        """Show the path and the summary, a line each."""
        rows = self.summary()
        width = max(map(len, rows))
        return "\n".join([f"Run {str(self.path)!r}", *(f"  {name:<{width}}  {text}" for name, text in rows.items())])

    def _repr_html_(self) -> str:
        """Show the same in a notebook, with the concept graph drawn."""
        from causcell._internal.html import graph_svg, html_card

        return html_card(f"Run {str(self.path)!r}", self.summary(), graph_svg(self.model.schema))


__getattr__ = moved_names(__name__, ("causcell_training.run_folder",))
