"""Reference cells: the embeddings that interventions draw from."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from causcell.errors import CorruptFileError, InterventionError
from causcell.randomness import Purpose, choices

CELLS_PER_LABEL = 1024
"""Cells kept for each label of each concept, at most."""


@dataclass(frozen=True)
class ReferenceCells:
    """Training cells whose concept embeddings stand for their labels.

    Attributes
    ----------
    exogenous
        Posterior means, float32 [P x M x k].
    labels
        Codes, int32 [P x m].
    combinations
        Every combination of labels among the training cells, int32 [C x m]; -1 is unlabelled.
    """

    exogenous: np.ndarray
    labels: np.ndarray
    combinations: np.ndarray

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> ReferenceCells:
        """Read from ``.npz`` (no pickle), a path or an open file; raises `CorruptFileError`."""
        try:
            with zipfile.ZipFile(file):  # np.load would also take a single array
                arrays = np.load(file, allow_pickle=False)
            with arrays:
                return cls(arrays["exogenous"], arrays["labels"], arrays["combinations"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptFileError(f"{file} holds no reference cells ({error}); export again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as ``.npz``."""
        np.savez_compressed(
            path,
            exogenous=self.exogenous,
            labels=self.labels,
            combinations=self.combinations,
        )

    def draw(
        self,
        concept: int,
        label: int,
        keys: np.ndarray,
        *,
        draw: int,
        parent_labels: np.ndarray | None = None,
        parents: tuple[int, ...] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """A reference cell that carries a label, for each cell.

        The draw is keyed by cell and concept, so other interventions on the same cell do not change it.

        Parameters
        ----------
        concept, label
            Indices of the concept and of its label.
        keys
            Cells' keys, uint64 [n x 2].
        draw
            Index of the draw.
        parent_labels
            Labels that the reference cell should carry of the concept's ``parents``, int [n x parents]; without it
            any cell with the label will do.

        Returns
        -------
        int64 [n] rows of the reference cells; bool [n] where no reference cell carries label and parents' labels
        together and one was drawn by the label alone.

        Raises
        ------
        InterventionError
            No reference cell carries the label.
        """
        carriers = np.flatnonzero(self.labels[:, concept] == label)
        if not len(carriers):
            raise InterventionError(
                f"no reference cell carries label {label} of concept {concept}; train on cells that carry it"
            )

        def pick(pool: np.ndarray) -> np.ndarray:
            return pool[choices(keys, np.full(len(keys), len(pool)), Purpose.REFERENCE, draw=draw, step=concept)]

        rows = pick(carriers)
        unmatched = np.zeros(len(keys), dtype=bool)
        if parent_labels is None or not parents:
            return rows, unmatched
        combos, inverse = np.unique(parent_labels, axis=0, return_inverse=True)
        for i, combo in enumerate(combos):
            here = np.flatnonzero(inverse.ravel() == i)
            matched = carriers[(self.labels[np.ix_(carriers, np.array(parents))] == combo).all(axis=1)]
            if len(matched):
                rows[here] = pick(matched)[here]
            else:
                unmatched[here] = True
        return rows, unmatched


def select_reference_cells(
    labels: np.ndarray, rng: np.random.Generator, per_label: int = CELLS_PER_LABEL
) -> np.ndarray:
    """Rows of training cells to keep, ascending int64: each label gets up to ``per_label`` cells, rare labels first.

    Parameters
    ----------
    labels
        Codes of all training cells, int [n x m].
    rng
        Picks the cells.
    """
    kept = np.zeros(len(labels), dtype=bool)
    pools = [
        np.flatnonzero(labels[:, concept] == label)
        for concept in range(labels.shape[1])
        for label in np.unique(labels[labels[:, concept] >= 0, concept])
    ]
    for pool in sorted(pools, key=len):
        wanted = min(per_label, len(pool)) - int(kept[pool].sum())
        if wanted > 0:
            kept[rng.permutation(pool[~kept[pool]])[:wanted]] = True
    return np.flatnonzero(kept)
