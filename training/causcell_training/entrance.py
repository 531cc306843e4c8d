"""The checks of what a training is given, before torch is imported: a wrong argument is told at once."""

from __future__ import annotations

import numpy as np

from causcell.cells.check import warn_of_labels
from causcell.cells.collection import AnySource
from causcell.cells.joined import open_joined
from causcell.cells.totals import read_totals
from causcell.concept_columns import check_columns, check_names
from causcell.concept_reading import split_kind
from causcell.concepts import Concept, ConceptSchema, Edge
from causcell_training.concept_graph import allowed_edges, warn_of_learned_graph
from causcell_training.config import TrainConfig
from causcell_training.data.concepts import read_controls, read_features, read_schema
from causcell_training.data.genes import check_panel
from causcell_training.data.split import TRAINING, Split, read_split, split_cells


def check_inputs(source: AnySource, config: TrainConfig, split: Split | None) -> None:
    """Check cells, concepts, edges, split and genes, cheapest first, and warn of labels that would mislead.

    Values are looked at when they are read. All is checked here that `causcell_training.data.cells.prepare` refuses
    without reading values, and by the same functions.

    Parameters
    ----------
    source, config, split
        As for `causcell_training.data.cells.prepare`.

    Raises
    ------
    CausCellError
        What `prepare` finds.
    """
    edges = allowed_edges(config)
    names = [split_kind(each)[0] for each in config.concept]
    check_names(names)
    ConceptSchema(tuple(Concept(name, ("0", "1")) for name in names), tuple(Edge(*pair) for pair in edges))
    features, controls = read_features(config), read_controls(config)
    given = None if split is None else read_split(split)
    with open_joined(source, layer=config.layer, raw=config.raw, announce=False) as cells:
        check_columns(cells.columns, names)
        check_panel(cells, config)
        if config.totals is not None:
            read_totals(cells, config.totals)
        obs = cells.read_obs(list(dict.fromkeys(names)))
        schema = read_schema(obs, config)
        labels = schema.encode(obs)
        cell_names = None if given is None else cells.names
        part = split_cells(cell_names, labels, schema, config, given, np.random.default_rng(config.seed))
        if schema.has_values:
            read_schema(obs, config, np.flatnonzero(part == TRAINING)).encode(obs)
        warn_of_labels(obs, config.concept, edges, features=features, controls=controls)
        warn_of_learned_graph(config)
