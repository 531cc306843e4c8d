"""The form of results: one row a (cell, intervention, draw), as AnnData.

``obs`` has, for every row:

- ``source_cell``: name of the cell it came from; ``intervention``: such as ``stim=IFN``, or ``factual``;
  ``draw``: index of the draw;
- one column a concept under its own name: the label after the intervention (the target's; the model's prediction
  for a descendant that changed; else the cell's own; NaN where unlabelled), and ``<concept>_factual``: the cell's own;
- ``unseen_combination``: whether no training cell carries these labels together.

``obs_names`` are the cells' own where each has one row, else ``cell|intervention``, with ``|draw`` for several draws.
``var`` is the panel; ``filled``: whether the gene was missing in the source. ``uns["causcell"]`` holds the provenance.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell.errors import CausCellWarning, CellNameError, listed
from causcell.schema import unseen_combinations

if TYPE_CHECKING:
    import pandas as pd

    from causcell.cells import Cells
    from causcell.expression import PanelReader
    from causcell.generator import Generator, Request


def result_obs(generator: Generator, cells: Cells, request: Request, labels: np.ndarray) -> pd.DataFrame:
    """``obs`` of the results, from label codes after the interventions, int32 [rows x m].

    Warns with a count of counterfactual rows whose combination of labels no training cell carries. Raises
    `CellNameError` if row names built from cells and interventions are not unique.
    """
    import pandas as pd

    schema = generator.schema
    per_cell = request.rows_per_cell
    factual = np.repeat(schema.encode(cells.obs), per_cell, axis=0)
    source = np.repeat(np.arange(len(cells)), per_cell)
    intervention = np.tile(np.repeat(np.arange(len(request.interventions)), request.draws), len(cells))
    draw = np.tile(np.arange(request.draws, dtype=np.int32), len(cells) * len(request.interventions))
    names = [each.name for each in request.interventions]
    obs = pd.DataFrame(index=_row_names(cells.names, names, request.draws))
    obs["source_cell"] = pd.Categorical.from_codes(source, categories=cells.names)
    obs["intervention"] = pd.Categorical.from_codes(intervention, categories=names)
    obs["draw"] = draw
    for i, concept in enumerate(schema.names):
        obs[concept] = schema.label_names(labels[:, i], concept)
        obs[f"{concept}_factual"] = schema.label_names(factual[:, i], concept)
    obs["unseen_combination"] = unseen_combinations(labels, generator.engine.reference.combinations)
    counterfactual = [bool(each.targets) for each in request.interventions]
    made = obs.loc[obs["unseen_combination"] & np.asarray(counterfactual)[intervention], list(schema.names)]
    if len(made):
        warnings.warn(
            f"{len(made)} of {len(obs)} rows have combinations of labels that no training cell carries: "
            f"{listed(made.astype(str).agg(' + '.join, axis=1).unique(), 4)}; they are marked in "
            "obs['unseen_combination']",
            CausCellWarning,
            stacklevel=3,
        )
    return obs


def _row_names(cells: np.ndarray, interventions: list[str], draws: int) -> pd.Index:
    import pandas as pd

    if len(interventions) * draws == 1:
        return pd.Index(cells)
    suffixes = [f"|{name}" + (f"|{draw}" if draws > 1 else "") for name in interventions for draw in range(draws)]
    names = pd.Index([cell + suffix for cell in cells for suffix in suffixes])
    if not names.is_unique:
        raise CellNameError(
            f"row names made of cell and intervention are not unique: {listed(names[names.duplicated()])}; rename "
            "cells whose names contain '|'"
        )
    return names


def result_var(generator: Generator, reader: PanelReader) -> pd.DataFrame:
    """``var`` of the results: the panel, and which genes were filled."""
    import pandas as pd

    genes = list(generator.preprocessing.genes)
    return pd.DataFrame({"filled": np.isin(genes, list(reader.missing))}, index=genes)


def result_uns(generator: Generator, request: Request) -> dict[str, Any]:
    """``uns["causcell"]`` of the results: what made them."""
    return generator.provenance() | {
        "seed": request.seed,
        "estimate": request.settings.estimate,
        "solver": asdict(request.settings),
        "mode": request.mode,
        "match_parents": request.match_parents,
        "draws": request.draws,
        "interventions": [each.name for each in request.interventions],
        "expression": "log1p",
    }
