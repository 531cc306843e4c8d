"""Concepts that settings name, read from the cells' annotations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from causcell.concept_columns import schema_from_obs
from causcell.concept_reading import LabelFeatures, read_label_features
from causcell.concepts import ConceptSchema, as_pairs
from causcell_training.config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd


def read_schema(obs: pd.DataFrame, config: TrainConfig, rows: np.ndarray | None = None) -> ConceptSchema:
    """Read concepts and graph.

    Parameters
    ----------
    obs
        Annotations of all cells.
    config
        Concepts, edges, label features and control labels.
    rows
        Training rows, int64, that say what numbers and sets there are; all rows, where none are given.

    Raises
    ------
    ConceptError
        Concepts, labels, edges or label features can't be used.
    """
    schema = schema_from_obs(
        obs,
        config.concept,
        as_pairs(config.edge, "parent:child", ":"),
        features=read_features(config),
        controls=read_controls(config),
        rows=rows,
    )
    return replace(schema, edges=()) if config.model.graph == "independent" else schema


def read_features(config: TrainConfig) -> dict[str, LabelFeatures]:
    """Read the tables of label features, by concept; raises `ConceptError`."""
    return {name: read_label_features(file) for name, file in as_pairs(config.label_features, "name=file.csv", "=")}


def read_controls(config: TrainConfig) -> dict[str, str]:
    """Return the control labels by concept; raises `ConceptError` for another form."""
    return dict(as_pairs(config.set_control, "name=label", "="))
