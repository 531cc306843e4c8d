"""A training run, as its folder holds it; `causcell_training.run_folder` lists the files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from causcell._deprecation import moved_names
from causcell._internal.digests import file_digest
from causcell._internal.files import new_file
from causcell.cells.hdf5_file import open_hdf5
from causcell.errors import CausCellError, RunError, format_list
from causcell.repository.description import ModelDescription
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells
from causcell_training.checkpoint_file import read_checkpoint
from causcell_training.concept_graph import describe_graph
from causcell_training.config import TrainConfig
from causcell_training.data.split import PART
from causcell_training.learned_graph import keep_found_edges
from causcell_training.model import CausCell
from causcell_training.run_data import RunData, TrainingFacts, check_matrix, measure_test_cells
from causcell_training.run_folder import (
    BEST_FILE,
    EARLIER_MODEL,
    HELD_OUT_FILE,
    REFERENCE_FILE,
    RUN_FILE,
    TRAINED_FILES,
    WEIGHTS_FILE,
    is_begun,
    is_finished,
    read_config,
)
from causcell_training.target_priors import fit_target_priors
from causcell_training.torch_defaults import own_torch_defaults
from causcell_training.trained_model import make_model, read_weights, select_model_weights

if TYPE_CHECKING:
    import anndata

_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError,
    SafetensorError,
)  # fmt: skip
"""What libraries raise for damaged files of a run folder."""


@dataclass(frozen=True, repr=False)
class Run:
    """A training run: the trained model, and what it was trained on and how.

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
        How the model was trained: time, epochs, steps, device, numbers of cells, measures on the test rows; with
        ``unfinished`` for the best model so far of a run that has not finished.
    versions
        Versions of the packages that trained it.
    """

    path: Path
    config: TrainConfig
    model: CausCell
    training_cells: TrainingCells
    provenance: dict[str, Any]
    versions: dict[str, str]
    _reference: ReferenceCells | None = field(default=None, compare=False)

    @property
    def description(self) -> ModelDescription:
        """Description of the model, as ``run.json`` and a manifest store it."""
        return ModelDescription.of(self.model.schema, self.model.preprocessing)

    @property
    def reference(self) -> ReferenceCells:
        """Reference cells that interventions draw from; raises `CorruptFileError` if they can't be read."""
        return self._reference or ReferenceCells.load(self.path / REFERENCE_FILE)

    def held_out(self) -> anndata.AnnData:
        """Read the held-out cells.

        Returns
        -------
        AnnData
            Panel expression of the validation and test rows (log scale, float32 CSR [cells x G]), their labels in
            ``obs``, and in ``obs["causcell:part"]`` ``choose`` for a validation row, ``report`` for a test row; so has
            ``obs["part"]``, unless a concept has this name.

        Raises
        ------
        RunError
            The file is missing or damaged.
        """
        return _read_held_out_cells(self.path, len(self.model.preprocessing.genes))

    def save(self) -> None:
        """Write the weights, then ``run.json``."""
        self.save_weights()
        self.describe()

    def save_weights(self) -> None:
        """Write the weights."""
        with new_file(self.path / WEIGHTS_FILE, overwrite=True) as staging:
            save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, staging)

    def describe(self) -> None:
        """Write ``run.json``, with digests of the other files; its presence says that the run has finished."""
        fields = {
            "config": self.config.model_dump(mode="json"),
            **self.description.model_dump(mode="json"),
            "training_cells": self.training_cells.model_dump(),
            "provenance": self.provenance,
            "versions": self.versions,
        }
        paths = [self.path / name for name in TRAINED_FILES]
        if all(path.is_file() for path in paths):
            fields["files"] = {path.name: file_digest(path) for path in paths}
        with new_file(self.path / RUN_FILE, overwrite=True) as staging:
            staging.write_text(json.dumps(fields, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, unfinished: bool = False) -> Run:
        """Open a run.

        Parameters
        ----------
        path
            The run folder.
        unfinished
            Take the best model so far of a run that has not finished; its measures on test rows and its reference
            cells are computed now.

        Raises
        ------
        RunError
            The folder holds no finished run, or one that can't be read; or, where ``unfinished``, no model either.

        Examples
        --------
        >>> Run.load("no_such_folder")
        Traceback (most recent call last):
        causcell.errors.RunError: 'no_such_folder' holds no finished training run (no run.json); train first
        """
        root = Path(path)
        with own_torch_defaults():
            if unfinished and is_begun(root) and not is_finished(root):
                return _load_unfinished(root)
            return _load_finished(root)

    def summary(self) -> dict[str, str]:
        """Summarise the run for people: what it was trained on, its concepts and edges, its measures on test rows."""
        schema, cells = self.model.schema, self.provenance["cells"]
        held_out = f"{cells['choose']} validation and {cells['report']} test cells"
        if measures := self.provenance["held_out"]:
            held_out += f"; mean estimate of test cells: PCC {measures['pcc']:.3f}, MSE {measures['mse']:.3f}"
        runs = self.provenance.get("descends_from", ())
        descent = (
            {"descends from": format_list(f"{each['run']} ({each['digest'][:12]})" for each in runs)} if runs else {}
        )
        unfinished = ", the best so far of a run that has not finished" if self.provenance.get("unfinished") else ""
        return {
            "trained on": f"{cells['train']} cells x {len(self.model.preprocessing.genes)} genes",
            **descent,
            "concepts": "; ".join(f"{each.name}: {format_list(each.labels)}" for each in schema.concepts),
            "edges": describe_graph(schema, self.provenance.get("edges", {})),
            "epochs": f"{self.provenance['epochs']} in {self.provenance['seconds']:.0f} s{unfinished}",
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


def _load_finished(root: Path) -> Run:
    if not (root / RUN_FILE).is_file():
        remedy = (
            "training has not finished: continue it with resume=True, or export its best model so far with "
            "unfinished=True"
            if is_begun(root)
            else "train first"
        )
        raise RunError(f"{os.fspath(root)!r} holds no finished training run (no {RUN_FILE}); {remedy}")
    try:
        fields = json.loads((root / RUN_FILE).read_text())
        for name, digest in dict(fields.get("files", {})).items():
            if name in TRAINED_FILES and file_digest(root / name) != digest:
                raise RunError(f"{name} is not the file that training wrote")
        for name, before in EARLIER_MODEL.items():
            fields["config"]["model"].setdefault(name, before)
        config = TrainConfig.model_validate(fields["config"])
        description = ModelDescription.model_validate(
            {name: fields[name] for name in ModelDescription.model_fields if name in fields}
        )
        model = make_model(description, config.model, read_weights(root / WEIGHTS_FILE))
        training_cells = TrainingCells.model_validate(fields["training_cells"])
        training_cells.check()
        run = Run(root, config, model, training_cells, fields["provenance"], fields["versions"])
        run.summary()  # raises where the provenance lacks what people and the command line are shown
        return run
    except (*_UNREADABLE, CausCellError) as error:
        raise RunError(f"the run in {os.fspath(root)!r} can't be read: {_shorten(error)}; train again") from error


def _load_unfinished(root: Path) -> Run:
    named = repr(os.fspath(root))
    if not (root / BEST_FILE).is_file():
        raise RunError(f"{named} holds no model yet: training ended before its first validation; resume it")
    try:
        data = RunData.load(root)
        config = read_config(root)
        best = read_checkpoint(root / BEST_FILE)
        model = make_model(data.description, config.model, select_model_weights(best["state_dict"]))
        model, found = keep_found_edges(model)
        provenance = data.provenance(config, TrainingFacts(**best["facts"])) | {"unfinished": True}
        held_out = _read_held_out_cells(root, len(data.description.genes))
        provenance["held_out"] = measure_test_cells(model, held_out)
        versions = {str(name): str(version) for name, version in best["versions"].items()}
        reference = data.embed_reference_cells(model)
        fit_target_priors(model, reference.exogenous, data.values)
        provenance |= data.describe_edges(model, found, reference)
        return Run(root, config, model, data.training_cells, provenance, versions, reference)
    except RunError:
        raise
    except (*_UNREADABLE, CausCellError) as error:
        raise RunError(
            f"the unfinished run in {named} can't be read: {_shorten(error)}; resume it, or begin again "
            "with overwrite=True"
        ) from error


def _read_held_out_cells(root: Path, genes: int) -> anndata.AnnData:
    from anndata.io import read_elem

    path = root / HELD_OUT_FILE
    try:
        file, close = open_hdf5(path)  # which a damaged file can't keep reading for ever
        try:
            held_out: anndata.AnnData = read_elem(file)
        finally:
            close()
        check_matrix(held_out.X)
        if held_out.n_vars != genes:
            raise ValueError(f"{held_out.n_vars} genes, where the model has {genes}")
        if PART not in held_out.obs:  # a run of an earlier version
            held_out.obs[PART] = held_out.obs["part"]
    except Exception as error:  # h5py and anndata raise of every kind for a damaged file
        raise RunError(f"{path} can't be read: {_shorten(error)}; train again") from error
    return held_out


def _shorten(error: BaseException) -> str:
    return f"{error}"[:300] or type(error).__name__


__getattr__ = moved_names(__name__, ("causcell_training.run_folder",))
