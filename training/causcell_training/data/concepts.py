"""Concepts that settings name, read from the cells' annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causcell.concept_columns import schema_from_obs
from causcell.concept_reading import LabelFeatures, read_label_features
from causcell.concepts import ConceptSchema, as_pairs
from causcell_training.concept_graph import allowed_edges, shape_graph
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
    ConfigurationError
        What the model's settings ask for takes edges, and there are none.
    """
    schema = schema_from_obs(
        obs,
        config.concept,
        allowed_edges(config),
        features=read_features(config),
        controls=read_controls(config),
        rows=rows,
    )
    return shape_graph(schema, config.model)


def read_features(config: TrainConfig) -> dict[str, LabelFeatures]:
    """Read the tables of label features, by concept; raises `ConceptError`."""
    return {name: read_label_features(file) for name, file in as_pairs(config.label_features, "name=file.csv", "=")}


def read_controls(config: TrainConfig) -> dict[str, str]:
    """Return the control labels by concept; raises `ConceptError` for another form."""
    return dict(as_pairs(config.set_control, "name=label", "="))
