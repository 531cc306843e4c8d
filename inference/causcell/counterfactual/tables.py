"""The form of results: one row a (cell, intervention, draw), as AnnData.

``obs`` has, for every row:

- ``source_cell``: name of the cell it came from; ``intervention``: such as ``stim=IFN``, or ``factual``;
  ``draw``: index of the draw (not in a summary over draws);
- one column a concept under its own name: the label after the intervention (the target's; the model's prediction
  for a descendant that changed, in a summary the most frequent one; else the cell's own; NaN where unlabelled), and
  ``<concept>_factual``: the cell's own;
- ``unseen_combination``: whether no training cell carries these labels together.

``obs_names`` are the cells' own where each has one row, else ``cell|intervention``, with ``|draw`` for several draws.
``var`` is the panel; ``filled``: whether the gene was missing in the source. ``uns["causcell"]`` holds the provenance.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.digests import name_digests
from causcell.concepts import unseen_combinations
from causcell.errors import CausCellWarning, CellNameError, format_list

if TYPE_CHECKING:
    import pandas as pd

    from causcell.cells.collection import AnyCells
    from causcell.concepts import ConceptSchema
    from causcell.counterfactual.request import Request
    from causcell.generator import Generator

_SLICE = 65536
"""Names are read so many at a time."""


_EXAMPLES = 5


def result_obs(
    schema: ConceptSchema,
    request: Request,
    names: np.ndarray,
    factual: np.ndarray,
    labels: np.ndarray,
    combinations: np.ndarray,
) -> pd.DataFrame:
    """``obs`` of the results of consecutive cells.

    Parameters
    ----------
    names
        The cells' names, str objects [n].
    factual
        Their own label codes, int32 [n x m].
    labels
        Label codes after the interventions, int32 [rows x m].
    combinations
        Those of the training cells, int32 [C x m].
    """
    import pandas as pd

    per_cell, draws = request.rows_per_cell, request.kept_draws
    source = np.repeat(np.arange(len(names)), per_cell)
    intervention = np.tile(np.repeat(np.arange(len(request.interventions)), draws), len(names))
    titles = [each.name for each in request.interventions]
    obs = pd.DataFrame(index=pd.Index(_row_names(names, titles, draws), dtype=object))
    obs["source_cell"] = pd.Categorical.from_codes(source, categories=pd.Index(names, dtype=object))
    obs["intervention"] = pd.Categorical.from_codes(intervention, categories=titles)
    if request.store != "summary":
        obs["draw"] = np.tile(np.arange(draws, dtype=np.int32), len(names) * len(titles))
    for i, concept in enumerate(schema.names):
        obs[concept] = schema.label_names(labels[:, i], concept)
        obs[f"{concept}_factual"] = schema.label_names(np.repeat(factual[:, i], per_cell), concept)
    obs["unseen_combination"] = unseen_combinations(labels, combinations)
    return obs


def _row_names(cells: np.ndarray, interventions: list[str], draws: int) -> np.ndarray:
    if len(interventions) * draws == 1:
        return cells
    suffixes = [f"|{name}" + (f"|{draw}" if draws > 1 else "") for name in interventions for draw in range(draws)]
    return np.array([cell + suffix for cell in cells for suffix in suffixes], dtype=object)


def check_row_names(cells: AnyCells, request: Request) -> None:
    """Raise `CellNameError` if two rows would have one name.

    That takes two interventions of which one's name ends in ``|`` and the other's, and a cell whose name is another's
    with what the longer one begins with.
    """
    suffixes = [f"|{each.name}" for each in request.interventions]
    surplus = tuple({a[: -len(b)] for a in suffixes for b in suffixes if a != b and a.endswith(b)})
    if not surplus:
        return
    for rows in batches(len(cells), _SLICE):
        names = [name for name in cells.names_of(rows) if name.endswith(surplus)]
        shorter = [name[: -len(end)] for name in names for end in surplus if name.endswith(end)]
        if np.isin(name_digests(shorter), cells.name_digests).any():
            raise CellNameError(
                f"row names made of cell and intervention are not unique, such as those of "
                f"{format_list(names)}; rename "
                "cells whose names contain '|'"
            )


@dataclass(frozen=True)
class Unseen:
    """Counterfactual rows with combinations of labels that no training cell carries, and the first few of these."""

    rows: int = 0
    examples: tuple[str, ...] = ()

    def __add__(self, other: Unseen) -> Unseen:
        return Unseen(self.rows + other.rows, tuple(dict.fromkeys(self.examples + other.examples))[:_EXAMPLES])

    def warn(self, total: int) -> None:
        """Warn if there are any among ``total`` rows."""
        if self.rows:
            warnings.warn(
                f"{self.rows} of {total} rows have combinations of labels that no training cell carries: "
                f"{format_list(self.examples, 4)}; they are marked in obs['unseen_combination']",
                CausCellWarning,
                stacklevel=3,
            )


def count_unseen(obs: pd.DataFrame, request: Request, concepts: Sequence[str]) -> Unseen:
    """Count them in ``obs`` of some cells' results."""
    counterfactual = np.array([bool(each.targets) for each in request.interventions])
    marked = obs["unseen_combination"].to_numpy() & counterfactual[obs["intervention"].cat.codes]
    if not marked.any():
        return Unseen()
    named = obs.loc[marked, list(concepts)].drop_duplicates().astype(str).agg(" + ".join, axis=1)
    return Unseen(int(marked.sum()), tuple(named)[:_EXAMPLES])


def warn_unmatched(rows: int, total: int) -> None:
    """Warn if rows found no reference cell with the parents' labels."""
    if rows:
        warnings.warn(
            f"{rows} of {total} rows found no reference cell with the target label and the parents' labels "
            "together; theirs was drawn by the target label alone",
            CausCellWarning,
            stacklevel=3,
        )


def result_var(genes: Sequence[str], missing: Sequence[str]) -> pd.DataFrame:
    """``var`` of the results: the panel, and which genes were filled."""
    import pandas as pd

    return pd.DataFrame({"filled": np.isin(list(genes), list(missing))}, index=list(genes))


def result_uns(generator: Generator, request: Request) -> dict[str, Any]:
    """``uns["causcell"]`` of the results: what made them."""
    return generator.provenance() | {
        "seed": request.seed,
        "estimate": request.settings.estimate,
        "solver": asdict(request.settings),
        "store": request.store,
        "mode": request.mode,
        "match_parents": request.match_parents,
        "draws": request.draws,
        "interventions": [each.name for each in request.interventions],
        "expression": "log1p",
    }
