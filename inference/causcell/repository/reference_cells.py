"""Reference cells: the embeddings that interventions draw from."""

from __future__ import annotations

import io
import math
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causcell._internal.values import first_unsound
from causcell.concepts import UNLABELLED
from causcell.errors import CorruptFileError, InterventionError, format_list
from causcell.randomness import Purpose, choices

if TYPE_CHECKING:
    from causcell.repository.manifest import Manifest

_LARGEST_ARRAY = 2**31
"""Bytes of an array at most, where no manifest says so."""

CELLS_PER_LABEL = 1024
"""Cells kept for each label of each concept, at most."""

FEWEST_PER_LABEL = 32
"""Cells kept for each label, however many labels there are."""

REFERENCE_BYTES = 2**26
"""Bytes of reference cells, before they are compressed, from which on labels get fewer cells than `CELLS_PER_LABEL`."""


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
    def load(
        cls,
        file: str | os.PathLike[str] | bytes,
        manifest: Manifest | None = None,
        source: str | None = None,
    ) -> ReferenceCells:
        """Read from ``.npz``, of which nothing is unpickled and no more is read than its arrays may have.

        Parameters
        ----------
        file
            Path of the file, or its bytes.
        manifest
            Manifest of the model that the cells have to fit; where there is none yet, they have to fit each other.
        source
            Name of the file for messages, where bytes are given.

        Raises
        ------
        CorruptFileError
            The file is no such archive, its arrays do not fit each other or the manifest, or a value can't be.
        """
        name = source or (os.fspath(file) if not isinstance(file, bytes) else "the file")
        try:
            with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
                cells = cls(**_read_arrays(archive, manifest))
            cells._check(manifest)
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds for damaged bytes
            told = str(error)[:300] or type(error).__name__
            raise CorruptFileError(f"{name} holds no reference cells ({told}); export again") from error
        return cells

    def _check(self, manifest: Manifest | None) -> None:
        """Raise `ValueError` unless the arrays fit each other, and the manifest if there is one."""
        rows, concepts = self.labels.shape
        if len(self.exogenous) != rows:
            raise ValueError(f"exogenous has {len(self.exogenous)} cells, labels has {rows}")
        if self.combinations.shape[1] != concepts or self.exogenous.shape[1] != concepts + 1:
            raise ValueError("its arrays are of different numbers of concepts")
        place = first_unsound(self.exogenous)
        if place is not None:
            raise ValueError(f"exogenous has {self.exogenous[place]} in row {place[0]}")
        for name in ("labels", "combinations"):
            codes = getattr(self, name)
            if codes.size and codes.min() < UNLABELLED:
                raise ValueError(f"{name} has code {codes.min()}")
            counts = [len(each.labels) for each in manifest.concepts] if manifest else []
            for concept, count in enumerate(counts):
                if len(codes) and codes[:, concept].max() >= count:
                    raise ValueError(f"{name} has code {codes[:, concept].max()} of a concept of {count} labels")

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


def _read_arrays(archive: zipfile.ZipFile, manifest: Manifest | None) -> dict[str, np.ndarray]:
    """Read the arrays of an archive whose stated sizes hold; raises `ValueError` and what `zipfile` raises."""
    rows = columns = width = None
    if manifest is not None:
        labels = sum(len(concept.labels) for concept in manifest.concepts)
        rows = min(manifest.training_cells.count, CELLS_PER_LABEL * labels)
        columns, width = manifest.dimensions.concepts, manifest.dimensions.embedding
    forms: dict[str, tuple[str, tuple[int | None, ...], int | None]] = {
        "exogenous": ("<f4", (None, columns and columns + 1, width), rows),
        "labels": ("<i4", (None, columns), rows),
        "combinations": ("<i4", (None, columns), manifest.training_cells.count if manifest else None),
    }
    if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in forms):
        raise ValueError(f"it holds {format_list(archive.namelist())} in place of {format_list(forms)}")
    return {name: _read_array(archive, name, *form) for name, form in forms.items()}


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int | None, ...], most: int | None
) -> np.ndarray:
    """Read an array of an element type and shape (`None` is any size), of at most ``most`` rows."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ValueError(f"{name} is packed in a way that export does not use")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name} is of version {version} of NumPy's format")
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        size = math.prod(found) * kind.itemsize
        fits = len(found) == len(shape) and all(each in (None, there) for each, there in zip(shape, found, strict=True))
        if kind != np.dtype(dtype) or not fits or min(found) < 0 or (most is not None and found[0] > most):
            asked = ["any" if each is None else each for each in shape]
            limit = "" if most is None else f" (at most {most} rows)"
            raise ValueError(f"{name} is {kind} {list(found)} in place of {np.dtype(dtype)} {asked}{limit}")
        if stream.tell() + size != info.file_size or size > _LARGEST_ARRAY:
            raise ValueError(f"{name} states {size} bytes, its archive {info.file_size}")
        content = stream.read(size)
        if len(content) != size or stream.read(1):
            raise ValueError(f"{name} is cut off")
    return np.frombuffer(content, dtype=dtype).reshape(found, order="F" if fortran else "C").copy()


def _pick(pool: np.ndarray, keys: np.ndarray, concept: int, draw: int) -> np.ndarray:
    """Pick, for each cell, a row of the pool by the cell's key."""
    places = choices(keys, np.full(len(keys), len(pool)), Purpose.REFERENCE, draw=draw, step=concept)
    picked: np.ndarray = pool[places]
    return picked


def cells_per_label(labels: int, concepts: int, embedding: int) -> int:
    """Return how many reference cells a label gets, so that the table is bounded by bytes and not by labels.

    Parameters
    ----------
    labels
        Number of labels of all concepts together.
    concepts
        Number of observed concepts, m.
    embedding
        Numbers per concept, k.

    Examples
    --------
    >>> cells_per_label(20, concepts=3, embedding=32), cells_per_label(508, concepts=3, embedding=32)
    (1024, 252)
    """
    bytes_a_cell = 4 * ((concepts + 1) * embedding + concepts)
    return max(FEWEST_PER_LABEL, min(CELLS_PER_LABEL, REFERENCE_BYTES // (bytes_a_cell * labels)))


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
