"""Training data: the panel's expression of all cells, their labels, and who is held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import Sampler

from causcell.cells.collection import Cells
from causcell.cells.panel import check_gene_names
from causcell.concepts import ConceptSchema, as_pairs, schema_from_obs
from causcell.errors import DataError
from causcell.preprocessing import DEVIATION_FLOOR, Preprocessing
from causcell_training.config import TrainConfig
from causcell_training.data.genes import choose_panel
from causcell_training.data.reading import read_panel, unit_preprocessing
from causcell_training.data.split import Part, given_parts, random_parts, require_trained_labels

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class TrainingData:
    """Cells ready to train on.

    Attributes
    ----------
    expression
        Panel expression on the log scale, float32 CSR [n x G].
    labels
        Codes, int32 [n x m]; -1 is unlabelled.
    names
        Cell names, str objects [n].
    part
        ``train``, ``choose`` (held out, to stop by) or ``report`` (held out, to report on), str objects [n].
    """

    expression: sparse.csr_matrix
    labels: np.ndarray
    names: np.ndarray
    part: np.ndarray
    schema: ConceptSchema
    preprocessing: Preprocessing

    def digest(self) -> str:
        """SHA-256 (hex) of cells, genes, expression, labels and parts."""
        digest = hashlib.sha256("\n".join([*self.names, *self.preprocessing.genes, *self.part]).encode())
        for array in (self.labels, self.expression.indptr, self.expression.indices, self.expression.data):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def rows(self, part: Part) -> np.ndarray:
        """Rows of one part, ascending int64."""
        return np.flatnonzero(self.part == part)

    def batch(self, rows: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Expression [B x G] and label codes int64 [B x m] of some rows."""
        expression = torch.from_numpy(self.expression[rows].toarray())
        return expression, torch.from_numpy(self.labels[rows].astype(np.int64))


def prepare(
    source: anndata.AnnData | str | os.PathLike[str],
    config: TrainConfig,
    split: str | os.PathLike[str] | Mapping[str, str] | None = None,
) -> TrainingData:
    """Read, check, split, choose genes and normalise.

    Parameters
    ----------
    source
        Cells, or a path to them; a backed file is read in slices.
    config
        Concepts, edges, expression scale, genes, held-out share, seed.
    split
        Part of each cell by name: a mapping, or a CSV file with columns ``cell`` and ``split``; ``train``, ``test``
        (or ``report``), and optionally ``validation`` (or ``choose``). Without it cells are held out at random.

    Raises
    ------
    CausCellError
        The data, concepts or settings can't be used; the message says why.
    """
    with Cells(source, layer=config.layer) as cells:
        return _prepare(cells, config, split)


def _prepare(
    cells: Cells, config: TrainConfig, split: str | os.PathLike[str] | Mapping[str, str] | None
) -> TrainingData:
    rng = np.random.default_rng(config.seed)
    edges = as_pairs(config.edge, "parent:child", ":")
    schema = schema_from_obs(cells.obs, config.concept, edges)
    if config.model.graph == "independent":
        schema = replace(schema, edges=())
    labels = schema.encode(cells.obs)
    part = random_parts(labels, config, rng) if split is None else given_parts(cells.names, labels, split, config, rng)
    require_trained_labels(schema, labels, part)
    check_gene_names(cells.genes)
    if not cells.genes:
        raise DataError("the data have no genes")
    train = np.flatnonzero(part == "train")
    panel = choose_panel(cells, train, config, rng)
    everything = cells.genes if config.expression == "counts" else []
    expression = read_panel(cells, unit_preprocessing(panel, config.expression, everything))
    mean, deviation = _moments(expression[train])
    preprocessing = Preprocessing(tuple(panel), config.expression, tuple(everything), mean, deviation)
    return TrainingData(expression, labels, cells.names, part, schema, preprocessing)


def _moments(expression: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and floored deviation of each gene, float32 [G]."""
    mean = np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(expression.astype(np.float64).power(2).mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.astype(np.float32), np.maximum(deviation, DEVIATION_FLOOR).astype(np.float32)


class ShuffledBatches(Sampler[np.ndarray]):
    """Rows of the training cells in batches, shuffled anew each epoch; the same for the same seed and epoch.

    Batches are of equal size as nearly as can be, at least the size asked for.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int) -> None:
        self._rows = rows
        self._count = max(1, len(rows) // batch_size)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the loop before each epoch, a resumed one included."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._rows)
        yield from np.array_split(order, self._count)
