"""The checks of what a training is given, before torch is imported: a wrong argument is told at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from causcell.cells.check import warn_of_labels
from causcell.cells.collection import Cells
from causcell.cells.totals import read_totals
from causcell.concept_columns import check_columns, check_names, schema_from_obs
from causcell.concepts import Concept, ConceptSchema, Edge
from causcell_training.concept_graph import allowed_edges, shape_graph, warn_of_learned_graph
from causcell_training.config import TrainConfig
from causcell_training.data.genes import check_panel
from causcell_training.data.split import Split, read_split, split_cells

if TYPE_CHECKING:
    import anndata


def check_inputs(
    source: anndata.AnnData | str | os.PathLike[str], config: TrainConfig, split: Split | None, *, stacklevel: int = 2
) -> None:
    """Check cells, concepts, edges, split and genes, cheapest first, and warn of labels that would mislead.

    Values are looked at when they are read. All is checked here that `causcell_training.data.cells.prepare` refuses
    without reading values, and by the same functions.

    Parameters
    ----------
    source, config, split
        As for `causcell_training.data.cells.prepare`.
    stacklevel
        As for `warnings.warn`.

    Raises
    ------
    CausCellError
        What `prepare` finds.
    """
    edges = allowed_edges(config)
    check_names(config.concept)
    ConceptSchema(tuple(Concept(name, ("0", "1")) for name in config.concept), tuple(Edge(*pair) for pair in edges))
    given = None if split is None else read_split(split)
    with Cells(source, layer=config.layer, raw=config.raw) as cells:
        check_columns(cells.columns, config.concept)
        check_panel(cells, config)
        if config.totals is not None:
            read_totals(cells, config.totals)
        obs = cells.obs
        schema = shape_graph(schema_from_obs(obs, config.concept, edges), config.model)
        labels = schema.encode(obs)
        split_cells(cells.names, labels, schema, config, given, np.random.default_rng(config.seed))
        warn_of_labels(obs, config.concept, edges, stacklevel=stacklevel + 1)
        warn_of_learned_graph(config, stacklevel=stacklevel + 1)
