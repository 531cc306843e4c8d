"""Training data: panel expression of all cells, their labels, and the part of each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from causcell._internal.batching import batches
from causcell.cells.collection import AnySource
from causcell.cells.joined import open_joined
from causcell.cells.table import CellTable
from causcell.concept_columns import check_columns
from causcell.concept_reading import split_kind
from causcell.concepts import ConceptSchema
from causcell.preprocessing import Preprocessing
from causcell_training.config import TrainConfig
from causcell_training.data.concepts import read_schema
from causcell_training.data.genes import choose_panel
from causcell_training.data.heritage import Heritage
from causcell_training.data.panel_rows import PanelBuilder, PanelCache, PanelRows, matrix_arrays
from causcell_training.data.reading import GeneShares, make_unit_preprocessing, read_slices
from causcell_training.data.split import REPLAYED, TRAINING, Part, Split, split_cells
from causcell_training.data.variation import PanelStatistics

if TYPE_CHECKING:
    import pandas as pd

_NAMES = 65_536
"""Names that are read at a time."""

Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Expression, labels, and where concepts have values these; see `TrainingData.batch`."""


@dataclass(frozen=True)
class TrainingData:
    """Labelled cells, ready to train on: n cells, G panel genes, m concepts.

    Attributes
    ----------
    expression
        Panel expression on the log scale, float32 [n x G]; its rows are CSR matrices.
    labels
        Label codes, int32 [n x m]; -1 is unlabelled.
    names
        Cell names, str objects or numpy's variable-width strings [n].
    part
        ``train`` (a training row), ``choose`` (a validation row: early stopping) or ``report`` (a test row) for each
        cell, str objects [n].
    schema
        Concepts and graph.
    preprocessing
        Gene panel, and mean and deviation of the training rows.
    values
        Values of concepts that have more than labels, float32 [n x width] by index of the concept; NaN: unlabelled.
    heritage
        What is taken over from the run that the training starts from. Its held-out cells and its replayed cells (of the
        part ``replay``) are among the rows; concepts, panel and moments are its own.
    """

    expression: PanelRows
    labels: np.ndarray
    names: np.ndarray
    part: np.ndarray
    schema: ConceptSchema
    preprocessing: Preprocessing
    values: Mapping[int, np.ndarray] = field(default_factory=dict)
    heritage: Heritage | None = None

    def digest(self) -> str:
        """Compute the SHA-256 (hex) of cells, genes, expression, labels, values and parts."""
        digest = hashlib.sha256()
        for name in itertools.chain(self.names, self.preprocessing.genes, self.part[:-1]):
            digest.update(f"{name}\n".encode())
        digest.update(str(self.part[-1]).encode())
        for array in itertools.chain([self.labels], matrix_arrays(self.expression), self.values.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.heritage is not None:
            digest.update(self.heritage.digest.encode())
        return digest.hexdigest()

    def rows(self, part: Part | Literal["replay"]) -> np.ndarray:
        """Find the rows of one part, ascending int64."""
        return np.flatnonzero(self.part == part)

    @property
    def trained_labels(self) -> np.ndarray:
        """Codes of labels of the training rows and of the replayed ones behind them, int32 [n x m]."""
        labels: np.ndarray = self.labels[np.concatenate([self.rows(TRAINING), self.rows(REPLAYED)])]
        return labels

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """Take some rows.

        Returns
        -------
        tuple of Tensor
            Log-scale expression, float32 [B x G], and label codes, int64 [B x m]; where concepts have values also
            these side by side, float32 [B x V], as `causcell.concepts.ConceptSchema.encode_values` has them.
        """
        expression = torch.from_numpy(self.expression[rows].toarray())
        labels = torch.from_numpy(self.labels[rows].astype(np.int64))
        if not self.schema.has_values:
            return expression, labels
        return expression, labels, torch.from_numpy(self.values_of(rows))

    def values_of(self, rows: np.ndarray | slice) -> np.ndarray:
        """Take the values of some rows side by side, float32 [B x V]; one-hot for concepts of plain labels."""
        return gather_values(self.schema, self.labels[rows], {i: each[rows] for i, each in self.values.items()})


def prepare(
    source: AnySource,
    config: TrainConfig,
    split: Split | None = None,
    cache: PanelCache | None = None,
) -> TrainingData:
    """Read cells, split them, choose genes and normalise.

    Parameters
    ----------
    source
        Cells [n x genes] with labels in ``obs``, or a path to them; or several by key, of which the genes that all
        have are read: see `causcell.cells.joined.JoinedCells`. Files are read in slices.
    config
        Concepts, edges, how values are read, genes, share of held-out cells, seed.
    split
        Part of each cell by name: a mapping, Series or DataFrame, or a CSV file with columns ``cell`` and ``split``;
        see `causcell_training.data.split.read_split`. The parts are ``train``, ``test`` (or ``report``), and
        optionally ``validation`` (or ``choose``). Without it cells are held out at random.
    cache
        Where the panel's values are kept; in memory, if not given.

    Raises
    ------
    ExpressionError
        Values are not what ``config.expression`` says.
    GenePanelError
        Genes are duplicated, listed and not in the data, fewer than two, or silent in all training cells.
    ConceptError
        Concepts, labels or edges can't be used; a label that no training row carries is an `UnknownLabelError`.
    ConfigurationError
        ``config.genes`` is neither a number of genes, nor ``all``, ``highly_variable`` or a readable file; or what says
        how a number is chosen does not fit the cells.
    RuntimeUnavailableError
        The way to choose genes lacks its package.
    DataError
        Too few cells, no genes, cells that are all the same, or a split that does not fit the cells.
    OutputFullError
        The disk of the cache is full.
    """
    with open_joined(source, layer=config.layer, raw=config.raw) as cells:
        rng = np.random.default_rng(config.seed)
        obs = read_concept_columns(cells, config)
        schema = read_schema(obs, config)
        labels = schema.encode(obs)
        names = read_packed_names(cells)
        part = split_cells(names, labels, schema, config, split, rng)
        train = np.flatnonzero(part == TRAINING)
        values: dict[int, np.ndarray] = {}
        if schema.has_values:
            schema = read_schema(obs, config, train)
            labels, values = encode_compactly(schema, obs)
        panel = choose_panel(cells, labels, train, config, rng)
        expression, preprocessing = _read_expression(cells, config, panel, train, cache or PanelCache())
        return TrainingData(expression, labels, names, part, schema, preprocessing, values)


def read_concept_columns(cells: CellTable, config: TrainConfig) -> pd.DataFrame:
    """Read the columns of ``obs`` that hold concepts, [n x m]; raises `UnknownConceptError` where one is not there."""
    names = [split_kind(each)[0] for each in config.concept]
    check_columns(cells.columns, names)
    return cells.read_obs(list(dict.fromkeys(names)))


def read_packed_names(cells: CellTable) -> np.ndarray:
    """Read the names of all cells as numpy's variable-width strings [n], a third of the memory of Python's."""
    packed = np.empty(len(cells), dtype=np.dtypes.StringDType())
    for part in batches(len(cells), _NAMES):
        packed[part] = cells.read_names(part)
    return packed


def encode_compactly(schema: ConceptSchema, obs: pd.DataFrame) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Encode cells: codes, int32 [n x m], and values, float32 [n x width], of concepts that have more than labels."""
    labels = schema.encode(obs)
    valued = [i for i, concept in enumerate(schema.concepts) if concept.value is not None]
    return labels, {i: ConceptSchema((schema.concepts[i],)).encode_values(obs)[1] for i in valued}


def gather_values(schema: ConceptSchema, labels: np.ndarray, values: Mapping[int, np.ndarray]) -> np.ndarray:
    """Put the values of some cells side by side, float32 [B x V], from codes [B x m] and what `encode_compactly` gave.

    One-hot values are made here, a batch at a time: of 500 labels and 200,000 cells they take 400 MB.
    """
    parts = []
    for i, concept in enumerate(schema.concepts):
        one_hot = None if i in values else concept.values[labels[:, i]]
        parts.append(values[i] if one_hot is None else np.where(labels[:, i, None] < 0, np.float32(np.nan), one_hot))
    return np.concatenate(parts, axis=1)


def _read_expression(
    cells: CellTable, config: TrainConfig, panel: list[str], train: np.ndarray, cache: PanelCache
) -> tuple[PanelRows, Preprocessing]:
    """Read the panel expression of all cells, and describe how by the training rows, in one pass."""
    counted = cells.genes if config.expression == "counts" else []
    trained = np.zeros(len(cells), dtype=bool)
    trained[train] = True
    shares = GeneShares(trained) if config.expression == "counts" and config.totals is None else None
    unit = make_unit_preprocessing(panel, config.expression, counted)
    statistics, builder, done = PanelStatistics(len(train), panel), PanelBuilder(len(panel), cache), 0
    slices = read_slices(
        cells, unit, np.arange(len(cells)), totals=config.totals, round_counts=config.round_counts, shares=shares
    )
    for block in slices:
        builder.add(block)
        statistics.add(block[trained[done : done + block.shape[0]]])
        done += block.shape[0]
    statistics.require_variation()
    mean, deviation = statistics.moments
    return builder.finish(), Preprocessing(
        tuple(panel),
        config.expression,
        () if shares is None else tuple(counted),
        mean,
        deviation,
        totals=config.totals,
        shares=None if shares is None else shares.mean,
        panel_sums=statistics.panel_sums,
    )
