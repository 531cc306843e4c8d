"""What a run keeps of its cells from its beginning: with it, the best weights so far are a model at any moment.

::

    held_out.h5ad                    validation and test cells: panel expression (log scale), labels, part
    checkpoints/data.safetensors     description of the model, digests of names, and the reference cells' expression

Both are written before the first step: what can't be written ends no training that has run for hours.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from scipy import sparse

from causcell._internal.batching import batches, choose_at_most
from causcell._internal.files import new_file
from causcell.concepts import UNLABELLED
from causcell.errors import CausCellError, RunError
from causcell.evaluation.metrics import mean_squared_error, pearson
from causcell.preprocessing import gene_digest
from causcell.repository.description import ModelDescription
from causcell.repository.manifest import TrainingCells
from causcell.repository.reference_cells import ReferenceCells, cells_per_label, select_reference_cells
from causcell_training.checkpoint_file import read_checkpoint, write_checkpoint
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData
from causcell_training.data.groups import GROUPS, summarise_groups
from causcell_training.data.split import MOST_VALIDATED, PART, REPLAYED, TEST, TRAINING, VALIDATION, Part
from causcell_training.learned_graph import edge_strengths
from causcell_training.model import CausCell
from causcell_training.run_folder import DATA_FILE, HELD_OUT_FILE
from causcell_training.value_measures import measure_values

if TYPE_CHECKING:
    import anndata

_MOST_HELD_OUT = 4096  # cells of each part kept in the run folder
_ENCODED_ROWS = 512  # cells of a batch


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of a training.

    Attributes
    ----------
    seconds
        Wall-clock time, that of sessions that were interrupted too.
    epochs, steps
        Epochs and optimiser steps taken.
    best_validation_mse
        Mean squared error of the kept weights' mean estimate on the validation rows, log scale.
    device
        Device trained on.
    plan
        Name of the training plan, where it is the user's own.
    """

    seconds: float
    epochs: int
    steps: int
    best_validation_mse: float
    device: str
    plan: str | None = None


@dataclass(frozen=True)
class RunData:
    """Facts of the cells that a run is trained on, and the expression of its reference cells.

    Attributes
    ----------
    digest
        SHA-256 of cells, genes, expression, labels and parts; see `TrainingData.digest`.
    description
        Concepts, graph, panel and standardisation.
    training_cells
        Digests of the names of the cells trained on.
    counts
        Number of cells of each part.
    expression
        Panel expression of the reference cells on the log scale, float32 CSR [P x G].
    labels
        Codes of their labels, int32 [P x m]; -1 is unlabelled.
    combinations
        Every combination of labels among all training cells, int32 [C x m].
    values
        Values of the reference cells side by side, float32 [P x V]; none where concepts are plain labels.
    offset
        What is added to the embeddings of those reference cells that are replayed, the last R ones, float32
        [R x M x k]; see `ReplayedCells`. None in a training that starts from no run.
    lineage
        The runs that it descends from, the nearest first; see `Heritage.lineage`.
    """

    digest: str
    description: ModelDescription
    training_cells: TrainingCells
    counts: dict[Part, int]
    expression: sparse.csr_matrix
    labels: np.ndarray
    combinations: np.ndarray
    values: np.ndarray | None = None
    offset: np.ndarray | None = None
    lineage: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, data: TrainingData, seed: int, embedding: int) -> RunData:
        """Choose the reference cells among the training rows and those replayed, and gather the facts."""
        train, heritage = data.rows(TRAINING), data.heritage
        candidates = np.concatenate([train, data.rows(REPLAYED)])
        count = sum(len(concept.labels) for concept in data.schema.concepts)
        most = cells_per_label(count, len(data.schema.concepts), embedding)
        chosen = select_reference_cells(data.labels[candidates], np.random.default_rng((seed, 1)), most)
        rows, names, combinations = candidates[chosen], iter(data.names[train]), data.labels[train]
        if heritage is not None:
            inherited = (name for name, part in heritage.split.items() if part == TRAINING)
            names = itertools.chain(names, inherited)
            combinations = np.concatenate([combinations, heritage.replayed.combinations])
        return cls(
            data.digest(),
            ModelDescription.of(data.schema, data.preprocessing),
            TrainingCells.of(names),
            {part: len(data.rows(part)) for part in (TRAINING, VALIDATION, TEST)},
            data.expression[rows],
            data.labels[rows],
            np.unique(combinations, axis=0),
            data.values_of(rows) if data.schema.has_values else None,
            None if heritage is None else heritage.replayed.offset[chosen[chosen >= len(train)] - len(train)],
            () if heritage is None else tuple(heritage.lineage(data.schema)),
        )

    def save(self, path: Path) -> None:
        """Write to a run folder."""
        arrays = {"values": self.expression.data, "indices": self.expression.indices, "indptr": self.expression.indptr}
        arrays |= {"labels": self.labels, "combinations": self.combinations}
        if self.values is not None:
            arrays["concept_values"] = self.values
        if self.offset is not None:
            arrays["offset"] = self.offset
        tree: dict[str, Any] = {
            "digest": self.digest,
            "description": self.description.model_dump_json(),
            "training_cells": self.training_cells.model_dump(),
            "counts": self.counts,
            "arrays": {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
        }
        if self.lineage:
            tree["lineage"] = json.dumps(self.lineage)
        write_checkpoint(tree, path / DATA_FILE)

    @classmethod
    def load(cls, path: Path) -> RunData:
        """Read from a run folder; raises `RunError` if that can't be done."""
        tree = read_checkpoint(path / DATA_FILE)
        try:
            description = ModelDescription.model_validate_json(tree["description"])
            arrays = {name: tensor.numpy() for name, tensor in tree["arrays"].items()}
            labels, genes = arrays["labels"], len(description.genes)
            if any(arrays[name].dtype.kind != "i" for name in ("indices", "indptr", "labels", "combinations")):
                raise ValueError("indices or codes that are no integers")
            expression = sparse.csr_matrix(
                (arrays["values"], arrays["indices"], arrays["indptr"]), shape=(len(labels), genes)
            )
            check_matrix(expression)
            concepts = [len(concept.labels) for concept in description.concepts]
            if labels.ndim != 2 or (labels >= concepts).any() or (labels < -1).any():
                raise ValueError("labels that the concepts do not have")
            counts: dict[Part, int] = {part: int(tree["counts"][part]) for part in (TRAINING, VALIDATION, TEST)}
            cells = TrainingCells.model_validate(tree["training_cells"])
            cells.check()
            offset, lineage = arrays.get("offset"), tuple(json.loads(tree.get("lineage", "[]")))
            if offset is not None:
                fits = offset.ndim == 3 and offset.shape[1] == len(concepts) + 1 and len(offset) <= len(labels)
                if not fits or offset.dtype != np.float32 or not np.isfinite(offset).all():
                    raise ValueError(f"offsets of type {offset.dtype} and shape {offset.shape}, or not finite")
            values = _check_values(arrays.get("concept_values"), description, len(labels))
            return cls(
                tree["digest"],
                description,
                cells,
                counts,
                expression,
                labels,
                arrays["combinations"],
                values,
                offset,
                lineage,
            )
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError, CausCellError) as error:
            raise RunError(
                f"{path / DATA_FILE} can't be used: {type(error).__name__} {str(error)[:200]}; begin the run "
                "again with overwrite=True"
            ) from error

    def provenance(self, config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
        """Describe how a model was trained on these cells, in plain values."""
        provenance: dict[str, Any] = {
            "seconds": round(facts.seconds, 1),
            "epochs": facts.epochs,
            "steps": facts.steps,
            "best_held_out_mse": round(facts.best_validation_mse, 6),
            "cells": self.counts,
            "gene_digest": gene_digest(self.description.genes),
            "device": facts.device,
            "config": config.model_dump(mode="json"),
        }
        if self.counts[VALIDATION] > MOST_VALIDATED:
            provenance["validated_cells"] = MOST_VALIDATED
        descent = {"descends_from": list(self.lineage)} if self.lineage else {}
        return provenance | ({"plan": facts.plan} if facts.plan else {}) | descent

    def describe_edges(
        self, model: CausCell, found: Mapping[str, Mapping[str, Any]], reference: ReferenceCells
    ) -> dict[str, Any]:
        """Describe a learned graph for the provenance, its edges with their strengths; nothing of one that was given.

        ``found`` is of `causcell_training.concept_graph.keep_found_edges`, strengths are measured on reference cells.
        """
        if not found:
            return {}
        strengths = edge_strengths(model, model.scm(torch.from_numpy(reference.exogenous)))
        return {"edges": {name: {**facts, "strength": strengths.get(name, 0.0)} for name, facts in found.items()}}

    @torch.no_grad()
    def embed_reference_cells(self, model: CausCell) -> ReferenceCells:
        """Encode the reference cells by a model in evaluation mode on the CPU.

        Those that are replayed have the embedding that they had in the run they come from, moved by as much as the
        encoder moved on the cells that they were decoded to.
        """
        first_replayed = len(self.labels) - (0 if self.offset is None else len(self.offset))
        known = [torch.from_numpy(self.labels).long()]
        known[0][first_replayed:] = UNLABELLED  # they were informed by their labels before
        if self.values is not None:
            known.append(torch.from_numpy(self.values.copy()))
            known[1][first_replayed:] = torch.nan
        exogenous = np.concatenate(
            [
                model.inform(
                    model.encode(torch.from_numpy(self.expression[part].toarray()))[0], *(each[part] for each in known)
                ).numpy()
                for part in batches(len(self.labels), _ENCODED_ROWS)
            ]
        )
        if self.offset is not None:
            exogenous[first_replayed:] += self.offset
        if not np.isfinite(exogenous).all():
            raise RunError("the model's embeddings of the reference cells are not finite; train again")
        return ReferenceCells(exogenous, self.labels, self.combinations)


def write_held_out_cells(data: TrainingData, seed: int, path: Path) -> None:
    """Write validation and test rows, some of each where there are many, to a run folder.

    Labels and part stand in ``obs``, statistics of the training cells in ``uns``. All text is stored as Python's,
    whatever pandas or anndata are set to.
    """
    import anndata
    import pandas as pd

    rng = np.random.default_rng((seed, 2))
    kept = [choose_at_most(data.rows(part), _MOST_HELD_OUT, rng) for part in (VALIDATION, TEST)]
    rows = np.sort(np.concatenate(kept))
    obs = pd.DataFrame(index=_text_index(data.names[rows]))
    obs[PART] = _text_categories(pd.Categorical(data.part[rows]))
    obs["part"] = obs[PART]  # by its short name, too, unless a concept has it
    for i, name in enumerate(data.schema.names):
        obs[name] = _column(data, i, rows)
    obs.columns = _text_index(obs.columns)
    held_out = anndata.AnnData(
        data.expression[rows],
        obs=obs,
        var=pd.DataFrame(index=_text_index(data.preprocessing.genes)),
        uns={GROUPS: summarise_groups(data)},
    )
    with new_file(path / HELD_OUT_FILE, overwrite=True) as staging:
        held_out.write_h5ad(staging)


def _column(data: TrainingData, i: int, rows: np.ndarray) -> Any:
    """Return a concept's column of some rows: labels, or the numbers or sets that its values are."""
    concept = data.schema.concepts[i]
    if concept.value is None:
        return _text_categories(data.schema.label_names(data.labels[rows, i], concept.name))
    values = data.values[i][rows]
    known = np.isfinite(values).all(axis=1)
    distinct, place = np.unique(values[known], axis=0, return_inverse=True)
    texts = np.full(len(rows), None, dtype=object)
    texts[known] = np.array([concept.describe_value(value) for value in distinct], dtype=object)[place.ravel()]
    if concept.value.is_number and not concept.value.ranks:
        return np.array([np.nan if text is None else float(text) for text in texts])
    import pandas as pd

    return _text_categories(pd.Categorical(texts, categories=sorted({text for text in texts if text is not None})))


def _check_values(values: np.ndarray | None, description: ModelDescription, cells: int) -> np.ndarray | None:
    """Return the values of reference cells that a file held; raises `ValueError` unless they are the concepts'."""
    schema = description.concept_schema
    if schema.has_values != (values is not None):
        raise ValueError("values of concepts that have none, or none of concepts that have")
    if values is not None and (values.dtype != np.float32 or values.shape != (cells, schema.value_slices[-1].stop)):
        raise ValueError(f"values of shape {values.shape}")
    return values


def _text_index(names: Any) -> Any:
    import pandas as pd

    return pd.Index([str(name) for name in names], dtype=object)


def _text_categories(values: Any) -> Any:
    import pandas as pd

    dtype = pd.CategoricalDtype(_text_index(values.categories), ordered=values.ordered)
    return pd.Categorical.from_codes(values.codes, dtype=dtype)


def check_matrix(matrix: Any) -> None:
    """Check a matrix that a file held, float32 [n x G]: indices within its shape, values finite; raises `ValueError`.

    Indices beyond it would be read as other cells' values, or as memory of the process.
    """
    if not sparse.issparse(matrix):
        values = np.asarray(matrix)
    else:
        matrix.check_format(full_check=True)
        values = matrix.data
    if values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError(f"expression of type {values.dtype}, or not all of it finite")


@torch.no_grad()
def measure_test_cells(model: CausCell, held_out: anndata.AnnData) -> dict[str, float]:
    """Measure the mean estimate on the test rows, PCC and MSE; nothing where there are none."""
    test = held_out[held_out.obs[PART] == TEST]
    if not test.n_obs:
        return {}
    real, encoded = test.X.toarray(), model.schema.encode(test.obs)
    known, measures = [torch.from_numpy(encoded).long()], {}
    read = model.encode(torch.from_numpy(real))[0]
    if model.schema.has_values:
        known.append(torch.from_numpy(model.schema.encode_values(test.obs)[1]))
        measures = measure_values(model, model.scm(read), known[1])
    estimate = model.mean_estimate(model.scm(model.inform(read, *known))).numpy()
    own = {"pcc": round(pearson(real, estimate), 4), "mse": round(mean_squared_error(real, estimate), 4)}
    return own | measures
