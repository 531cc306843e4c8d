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
        Posterior means of the cells' exogenous embeddings, float32 [P x M x k].
    labels
        Codes of the cells' labels, int32 [P x m]; -1 is unlabelled.
    combinations
        Every combination of labels among all training cells, int32 [C x m]; -1 is unlabelled.
    """

    exogenous: np.ndarray
    labels: np.ndarray
    combinations: np.ndarray

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> ReferenceCells:
        """Read from ``.npz``, a path or an open file; raises `CorruptFileError`. Nothing is unpickled."""
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
        """Draw, for each cell, a reference cell that carries a label.

        A draw is keyed by cell and concept: batch, order and other interventions on the same cell do not change it.

        Parameters
        ----------
        concept, label
            Index of the concept, and code of the label.
        keys
            Keys of the cells, uint64 [n x 2], see `causcell.randomness.cell_keys`.
        draw
            Index of the draw.
        parent_labels, parents
            Codes of labels that the reference cell should carry too, int [n x parents], and the concepts that they are
            of; without them any reference cell with the label will do.

        Returns
        -------
        rows
            Rows of the reference cells, int64 [n].
        unmatched
            True where no reference cell carries all the labels, and one was drawn by ``label`` alone, bool [n].

        Raises
        ------
        InterventionError
            No reference cell carries the label.

        Examples
        --------
        >>> from causcell.randomness import cell_keys
        >>> reference = ReferenceCells(
        ...     exogenous=np.zeros((4, 2, 3), dtype=np.float32),
        ...     labels=np.array([[0], [1], [1], [0]], dtype=np.int32),
        ...     combinations=np.array([[0], [1]], dtype=np.int32),
        ... )
        >>> rows, unmatched = reference.draw(0, 1, cell_keys(0, ["cell_a", "cell_b", "cell_c"]), draw=0)
        >>> reference.labels[rows, 0]
        array([1, 1, 1], dtype=int32)
        """
        carriers = np.flatnonzero(self.labels[:, concept] == label)
        if not len(carriers):
            raise InterventionError(
                f"no reference cell carries label {label} of concept {concept}; train on cells that carry it"
            )
        rows = _pick(carriers, keys, concept, draw)
        unmatched = np.zeros(len(keys), dtype=bool)
        if parent_labels is None or not parents:
            return rows, unmatched
        combinations, inverse = np.unique(parent_labels, axis=0, return_inverse=True)
        for i, combination in enumerate(combinations):
            here = np.flatnonzero(inverse.ravel() == i)
            matched = carriers[(self.labels[np.ix_(carriers, np.array(parents))] == combination).all(axis=1)]
            if len(matched):
                rows[here] = _pick(matched, keys, concept, draw)[here]
            else:
                unmatched[here] = True
        return rows, unmatched


def _pick(pool: np.ndarray, keys: np.ndarray, concept: int, draw: int) -> np.ndarray:
    """Pick, for each cell, a row of the pool by the cell's key."""
    places = choices(keys, np.full(len(keys), len(pool)), Purpose.REFERENCE, draw=draw, step=concept)
    picked: np.ndarray = pool[places]
    return picked


def select_reference_cells(
    labels: np.ndarray, rng: np.random.Generator, per_label: int = CELLS_PER_LABEL
) -> np.ndarray:
    """Select the training cells to keep as reference cells: rare labels first, each up to ``per_label`` cells.

    Parameters
    ----------
    labels
        Codes of the labels of all training cells, int [n x m]; -1 is unlabelled.
    rng
        Generator that picks the cells.
    per_label
        Cells that each label of each concept gets, if it has so many.

    Returns
    -------
    Rows of the cells to keep, int64, ascending.
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
