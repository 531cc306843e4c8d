"""Training data: the panel's expression of all cells, their labels, and who is held out."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import Sampler

from causcell.cells import Cells, batches
from causcell.errors import ConfigurationError, DataError, GenePanelError, UnknownLabelError, listed
from causcell.expression import DEVIATION_FLOOR, PanelReader, Preprocessing, Scale, check_gene_names
from causcell.schema import UNLABELLED, ConceptSchema, as_pairs, schema_from_obs
from causcell_training.config import TrainConfig

if TYPE_CHECKING:
    import anndata

Part = Literal["train", "choose", "report"]
_SPLIT_WORDS = {"train": "train", "choose": "choose", "validation": "choose", "report": "report", "test": "report"}

_READ_ROWS = 1024
_CELLS_FOR_STATISTICS = 20_000  # gene dispersions and principal components settle long before


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
    part = (
        _random_parts(labels, config, rng) if split is None else _given_parts(cells.names, labels, split, config, rng)
    )
    _require_trained_labels(schema, labels, part)
    check_gene_names(cells.genes)
    if not cells.genes:
        raise DataError("the data have no genes")
    train = np.flatnonzero(part == "train")
    panel = _panel(cells, train, config, rng)
    everything = cells.genes if config.expression == "counts" else []
    expression = _read_all(cells, _preprocessing(panel, config.expression, everything))
    mean, deviation = _moments(expression[train])
    preprocessing = Preprocessing(tuple(panel), config.expression, tuple(everything), mean, deviation)
    return TrainingData(expression, labels, cells.names, part, schema, preprocessing)


def _preprocessing(panel: list[str], scale: Scale, normalisation_genes: list[str]) -> Preprocessing:
    unit = np.ones(len(panel), dtype=np.float32)
    return Preprocessing(tuple(panel), scale, tuple(normalisation_genes), 0 * unit, unit)


def _read_all(cells: Cells, preprocessing: Preprocessing, rows: np.ndarray | None = None) -> sparse.csr_matrix:
    """Panel expression of some or all cells, read in slices, float32 CSR."""
    reader = PanelReader(preprocessing, cells.genes)
    wanted = np.arange(len(cells)) if rows is None else rows
    blocks = []
    for part in batches(len(wanted), _READ_ROWS):
        chosen = wanted[part]
        blocks.append(sparse.csr_matrix(reader.read(cells.values(chosen), cells.names[chosen])))
    return sparse.vstack(blocks, format="csr")


def _panel(cells: Cells, train: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> list[str]:
    """Names of the panel's genes: all, those of a file, or the most variable ones of the training cells."""
    genes = cells.genes
    if isinstance(config.genes, str):
        if config.genes == "all":
            return genes
        try:
            listed_genes = Path(config.genes).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"--genes {config.genes!r} is neither a number, nor 'all', nor a file of gene names ({error})"
            ) from error
        check_gene_names(listed_genes)
        if len(listed_genes) < 2:
            raise ConfigurationError(f"--genes {config.genes!r} names {len(listed_genes)} genes; give two or more")
        absent = [gene for gene in listed_genes if gene not in set(genes)]
        if absent:
            raise GenePanelError(
                f"{len(absent)} of {len(listed_genes)} genes of --genes {config.genes!r} are not in the data: "
                f"{listed(absent)}; leave them out, or give data that have them"
            )
        return listed_genes
    if config.genes < 2:
        raise ConfigurationError(f"--genes is {config.genes}; take at least 2, 'all', or a file of gene names")
    if len(genes) <= config.genes:
        return genes
    import anndata
    import pandas as pd
    import scanpy

    everything = _read_all(cells, _preprocessing(genes, config.expression, genes), _sample(train, rng))
    threads = torch.get_num_threads()
    statistics = scanpy.pp.highly_variable_genes(
        anndata.AnnData(everything, var=pd.DataFrame(index=genes)), n_top_genes=config.genes, inplace=False
    )
    torch.set_num_threads(threads)  # numba, in scanpy, sets OpenMP's threads for the whole process
    # not statistics["highly_variable"]: ties at its threshold make it longer than asked
    dispersion = statistics["dispersions_norm"].fillna(-np.inf).to_numpy()
    chosen = np.argsort(-dispersion, kind="stable")[: config.genes]
    return [genes[i] for i in np.sort(chosen)]


def principal_axes(data: TrainingData, components: int, seed: int) -> np.ndarray:
    """Map from standardised expression to principal components of the training cells on the log scale.

    The components are scaled by one number, to a mean deviation of 1; those beyond the rank of the data are zero.

    Returns
    -------
    float32 [G x components].
    """
    from sklearn.decomposition import PCA

    rows = _sample(data.rows("train"), np.random.default_rng((seed, 3)))
    count = min(components, min(len(rows), data.expression.shape[1]) - 1)
    pca = PCA(count, svd_solver="arpack", random_state=seed).fit(data.expression[rows].astype(np.float64))
    scale = np.sqrt(pca.explained_variance_).mean()
    axes = np.zeros((data.expression.shape[1], components), dtype=np.float32)
    axes[:, :count] = (pca.components_ * data.preprocessing.deviation).T / scale
    return axes


def _sample(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= _CELLS_FOR_STATISTICS:
        return rows
    return np.sort(rng.choice(rows, _CELLS_FOR_STATISTICS, replace=False))


def _moments(expression: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and floored deviation of each gene, float32 [G]."""
    mean = np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(expression.astype(np.float64).power(2).mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.astype(np.float32), np.maximum(deviation, DEVIATION_FLOOR).astype(np.float32)


def _random_parts(labels: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Parts at random; the first cell met of every label is trained on, so that no label goes untrained."""
    count = len(labels)
    held_out = round(config.optimisation.held_out * count)
    if held_out < 2 or count - held_out < 2:
        raise DataError(
            f"{count} cells are too few to train on and hold out {config.optimisation.held_out:.0%} of them; "
            "give more cells, or another share (--set optimisation.held_out=0.2)"
        )
    order = rng.permutation(count)
    needed = _first_of_each_label(labels, order)
    free = np.array([row for row in order if row not in needed], dtype=np.int64)[:held_out]
    if len(free) < 2:
        raise DataError(
            f"{count} cells are too few: {len(needed)} of them are the only ones met of a label and are trained on, "
            "which leaves none to hold out; give more cells, or fewer labels"
        )
    part = np.full(count, "train", dtype=object)
    part[free[: len(free) // 2]] = "choose"
    part[free[len(free) // 2 :]] = "report"
    return part


def _first_of_each_label(labels: np.ndarray, order: np.ndarray) -> set[int]:
    """The first row of every label of every concept, in an order of rows."""
    ordered = labels[order]
    return {
        int(order[np.flatnonzero(ordered[:, concept] == label)[0]])
        for concept in range(labels.shape[1])
        for label in np.unique(ordered[ordered[:, concept] != UNLABELLED, concept])
    }


def _given_parts(
    names: np.ndarray,
    labels: np.ndarray,
    split: str | os.PathLike[str] | Mapping[str, str],
    config: TrainConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Parts as given; where no cell is given to choose by, half the held-out share of the training cells is."""
    given = split if isinstance(split, Mapping) else read_split(split)
    absent = [name for name in names if name not in given]
    if absent:
        raise DataError(f"the split says nothing of {len(absent)} cells: {listed(absent)}; give each cell a part")
    words = np.array([given[name] for name in names], dtype=object)
    strange = sorted({str(word) for word in words if word not in _SPLIT_WORDS})
    if strange:
        raise DataError(f"the split has parts {listed(strange)}; allowed are {listed(_SPLIT_WORDS)}")
    part = np.array([_SPLIT_WORDS[word] for word in words], dtype=object)
    train = np.flatnonzero(part == "train")
    if not (part == "choose").any():
        wanted = max(1, round(config.optimisation.held_out / 2 * len(train)))
        order = rng.permutation(train)
        needed = _first_of_each_label(labels, order)
        part[[row for row in order if row not in needed][:wanted]] = "choose"
    if (part == "train").sum() < 2:
        raise DataError(f"the split leaves {int((part == 'train').sum())} cells to train on; give at least two")
    return part


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Part of each cell by name, from a CSV file with columns ``cell`` and ``split``; raises `DataError`."""
    try:
        with Path(path).open(newline="") as file:
            return {row["cell"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the split file {os.fspath(path)!r} can't be read ({error}); it is a CSV file with columns cell and split"
        ) from error


def _require_trained_labels(schema: ConceptSchema, labels: np.ndarray, part: np.ndarray) -> None:
    for i, concept in enumerate(schema.concepts):
        trained = set(labels[part == "train", i].tolist())
        untrained = [label for code, label in enumerate(concept.labels) if code not in trained]
        if untrained:
            raise UnknownLabelError(
                f"concept {concept.name!r} has labels that no training cell carries: {listed(untrained)}; train on "
                "some of their cells, or set these labels to NaN"
            )


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
