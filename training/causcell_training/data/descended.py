"""Training data of a training that starts from a finished run: its panel and concepts, and labels that are new."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from causcell._internal.batching import batches
from causcell.cells.collection import AnySource
from causcell.cells.joined import join_columns, join_obs
from causcell.cells.panel_cells import Reading
from causcell.cells.split import assign_parts
from causcell.concept_columns import check_columns
from causcell.concepts import ConceptSchema
from causcell.errors import DataError, format_list
from causcell_training.config import DescentConfig, TrainConfig
from causcell_training.data.cells import TrainingData, encode_compactly
from causcell_training.data.concepts import read_features
from causcell_training.data.grown_concepts import grow_schema
from causcell_training.data.heritage import HeldOutCells, Heritage
from causcell_training.data.panel_rows import PanelBuilder, PanelCache, PanelRows
from causcell_training.data.split import (
    REPLAYED,
    TRAINING,
    Part,
    Split,
    read_split,
    require_trained_labels,
    split_as_given,
    split_at_random,
)

_READ_ROWS = 1024

_SAME_VALUE = 1e-3
"""Largest difference, log scale, of two readings of one cell."""


def prepare_descended(
    source: AnySource,
    config: TrainConfig,
    split: Split | None,
    heritage: Heritage,
    cache: PanelCache | None = None,
) -> TrainingData:
    """Read new cells as the model of a run reads cells, and put the run's held-out and replayed cells beside them.

    Parameters
    ----------
    source, split
        As for `causcell_training.data.cells.prepare`. Cells that the run knows by name keep the part they had in it;
        a split need not name them.
    config
        How values are read, share of held-out cells, seed.
    heritage
        What is taken over from the run.
    cache
        Where the panel's values are kept; in memory, if not given.

    Returns
    -------
    TrainingData
        The new cells, then the run's held-out cells that are not among them, then its replayed cells.

    Raises
    ------
    CausCellError
        What `prepare` finds; `GenePanelError` for genes of the panel that the cells lack; `DataError` for a split that
        gives a known cell another part, or for new cells that have the names of other cells of the run.
    """
    descent = config.descent or DescentConfig()
    reading = Reading(
        config.layer,
        config.raw,
        totals=config.totals,
        round_counts=config.round_counts,
        allow_missing_genes=descent.allow_missing_genes,
    )
    with reading.open(source) as cells:
        check_columns(join_columns(cells.parts), heritage.schema.names)
        obs, features = join_obs(cells.parts, heritage.schema.names), read_features(config)
        schema = grow_schema(heritage.schema, obs, features=features)
        bound = reading.bind(cells, schema, heritage.preprocessing)
        labels, names, values = bound.labels, cells.names, dict[int, np.ndarray]()
        part = split_descended(names, labels, schema, config, split, heritage)
        if schema.has_values:
            schema = grow_schema(heritage.schema, obs, features=features, rows=np.flatnonzero(part == TRAINING))
            labels, values = encode_compactly(schema, obs)
        builder = PanelBuilder(len(heritage.preprocessing.genes), cache or PanelCache())
        for rows in batches(len(bound), _READ_ROWS):
            builder.add(sparse.csr_matrix(bound.read_expression(rows)))
        lacking = np.isin(heritage.preprocessing.genes, bound.missing)
    held_out = _other_held_out_cells(heritage.held_out, names, builder.finish(), lacking)
    old_labels, old_values = encode_compactly(schema, held_out.obs)
    replayed = heritage.replayed
    again = replayed.encode_values(schema)
    numbered = np.array([f"replay:{i}" for i in range(len(replayed.labels))], dtype=object)
    builder.add(held_out.expression)
    builder.add(replayed.expression)
    return TrainingData(
        builder.finish(),
        np.concatenate([labels, old_labels, replayed.labels]).astype(np.int32),
        np.concatenate([names, held_out.names, numbered]),
        np.concatenate([part, held_out.part, np.full(len(numbered), REPLAYED, dtype=object)]),
        schema,
        heritage.preprocessing,
        {i: np.concatenate([own, old_values[i], again[i]]) for i, own in values.items()},
        heritage=heritage,
    )


def split_descended(
    names: np.ndarray,
    labels: np.ndarray,
    schema: ConceptSchema,
    config: TrainConfig,
    split: Split | None,
    heritage: Heritage,
) -> np.ndarray:
    """Give cells that the run knows the part they had in it, and split the others as asked or at random.

    Returns
    -------
    ndarray
        Part of each cell, str objects [n].

    Raises
    ------
    DataError
        A split gives a known cell another part, leaves a new cell out, or leaves fewer than two cells to train on.
    UnknownLabelError
        A new label is carried by held-out cells alone.
    """
    part = np.array([heritage.split.get(name) for name in names], dtype=object)
    new = np.flatnonzero([each is None for each in part])
    given = None if split is None else read_split(split)
    if given is not None:
        _check_known_parts(names, part, given)
    if len(new):
        rng, held_out = np.random.default_rng(config.seed), config.optimisation.held_out
        part[new] = (
            split_at_random(labels[new], schema, held_out, rng)
            if given is None
            else split_as_given(names[new], labels[new], given, held_out, rng)
        )
    if (part == TRAINING).sum() < 2:
        raise DataError(
            f"{int((part == TRAINING).sum())} of {len(part)} cells are there to train on, the others are held-out "
            "cells of the run that training starts from; give at least two"
        )
    _require_new_labels(schema, labels, part, heritage.schema)
    return part


def _check_known_parts(names: np.ndarray, part: np.ndarray, given: Mapping[str, str]) -> None:
    """Raise `DataError` where a split moves a cell of the run to another part."""
    for name, known in zip(names, part, strict=True):
        if known is None or name not in given:
            continue
        asked: Part = assign_parts(np.array([name], dtype=object), {name: given[name]})[0]
        if (asked == TRAINING) != (known == TRAINING):
            was = "trained on" if known == TRAINING else "held out"
            raise DataError(
                f"the split has cell {name!r} as {given[name]!r}, and the run that training starts from has it "
                f"{was} ({known}); cells keep their part, so that nothing tested was trained on: leave it out of the "
                "split, or give it the part it had"
            )


def _require_new_labels(schema: ConceptSchema, labels: np.ndarray, part: np.ndarray, known: ConceptSchema) -> None:
    """Check that training rows carry every label that the run did not know."""
    of_run = np.arange(max(len(concept.labels) for concept in known.concepts), dtype=np.int32)
    carried = np.stack([np.minimum(of_run, len(concept.labels) - 1) for concept in known.concepts], axis=1)
    require_trained_labels(
        schema, np.concatenate([labels, carried]), np.concatenate([part, np.full(len(carried), TRAINING, dtype=object)])
    )


def _other_held_out_cells(
    held_out: HeldOutCells, names: np.ndarray, expression: PanelRows, lacking: np.ndarray
) -> HeldOutCells:
    """Take a run's held-out cells that are not among new cells; those that are have to be the same cells.

    Raises
    ------
    DataError
        A new cell has the name of a held-out one, and other values.
    """
    place = {name: row for row, name in enumerate(names)}
    again = np.array([name in place for name in held_out.names], dtype=bool)
    rows = np.array([place[name] for name in held_out.names[again]], dtype=np.int64)
    for part in batches(len(rows), _READ_ROWS):
        there, here = held_out.expression[again][part].toarray(), expression[rows[part]].toarray()
        differing = np.abs(there - here)[:, ~lacking].max(axis=1, initial=0) > _SAME_VALUE
        if differing.any():
            other = held_out.names[again][part][differing]
            raise DataError(
                f"{len(other)} cells have names of held-out cells of the run that training starts from, and other "
                f"values: {format_list(other)}; a cell is known by its name: give other cells other names (a prefix), "
                "and the same ones in the scale they had"
            )
    return HeldOutCells(
        held_out.expression[~again], held_out.obs[~again], held_out.names[~again], held_out.part[~again]
    )
