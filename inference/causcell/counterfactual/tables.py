"""The form of results: one row a (cell, intervention, draw), as AnnData.

``obs`` has, for every row:

- ``source_cell``: name of the cell it came from; ``intervention``: such as ``stim=IFN``, or ``factual``;
  ``draw``: index of the draw (not in a summary over draws);
- one column a concept under its own name: the label after the intervention (the target's; the model's prediction
  for a descendant that changed, in a summary the most frequent one; else the cell's own; NaN where unlabelled), and
  ``<concept>_factual``: the cell's own; numbers in the data's units where the concept has numbers
  (`causcell.counterfactual.label_columns`), in a summary the mean one;
- ``unseen_combination``: whether no training cell carries these labels together;
- ``extrapolated``: of models whose concepts are more than labels, whether the intervention sets one to a value beyond
  what the model was trained on: a number out of range, a set never seen, a label known by its features alone;
- ``library_size``: of counts alone, the total that they were made for, float64.
- the cells' own columns of ``obs`` that travel, after these; see `causcell.cells.annotations`.

``obs_names`` are the cells' own where each has one row, else ``cell|intervention``, with ``|draw`` for several draws.
``var`` is the panel; ``filled``: whether the gene was missing in the source; then the source's own columns.
``uns["causcell"]`` holds the provenance, and says in words what ``X`` is; where that is log expression,
``uns["log1p"]`` is as `scanpy.pp.log1p` leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.digests import name_digests
from causcell._internal.telling import warn
from causcell.cells.annotations import Annotations, Kept, select_annotations
from causcell.cells.collection import AnyCells
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import EXTRAPOLATED, ConceptSchema, unseen_combinations
from causcell.counterfactual.counts import LIBRARY_SIZE
from causcell.counterfactual.label_columns import label_columns
from causcell.counterfactual.model import CounterfactualModel
from causcell.counterfactual.outputs import EMBEDDINGS, Block
from causcell.counterfactual.request import Request
from causcell.counterfactual.uncertainty import EffectUncertainty, describe_intervals
from causcell.errors import CellNameError, format_list

if TYPE_CHECKING:
    import anndata
    import pandas as pd


LOG1P: Mapping[str, Any] = {"log1p": {"base": None}}
"""What `scanpy.pp.log1p` leaves in ``uns``: natural logarithms."""

_ESTIMATES = {"sample": "expression of a sampled cell", "mean": "expression, conditional mean"}

_SLICE = 65536
"""Names are read so many at a time."""

_EXAMPLES = 5


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
            warn(
                f"{self.rows:,} of {total:,} rows have combinations of labels that no training cell carries: "
                f"{format_list(self.examples, 4)}; they are marked in obs['unseen_combination']"
            )


@dataclass(frozen=True)
class ResultTable:
    """``obs``, ``var`` and ``uns`` of the results of one request.

    Attributes
    ----------
    schema
        Concepts and graph.
    genes
        The panel.
    combinations
        Combinations of labels among the training cells, int32 [C x m].
    provenance
        See `causcell.counterfactual.model.CounterfactualModel.provenance`.
    request
        What was generated.
    intervals
        What ``uns`` says of a summary's intervals.
    scale
        What a value of expression is, in words.
    """

    schema: ConceptSchema
    genes: tuple[str, ...]
    combinations: np.ndarray
    provenance: dict[str, Any]
    request: Request
    intervals: dict[str, Any] = field(default_factory=dict)
    scale: str = ""

    @classmethod
    def of(cls, model: CounterfactualModel, request: Request) -> ResultTable:
        """Make the table of a model's results."""
        seen = model.engine.reference.combinations
        intervals = {}
        if request.store == "summary":
            concepts = {concept for each in request.interventions for concept, _ in each.targets}
            intervals = describe_intervals(EffectUncertainty.of(model), concepts, request.interval)
        genes, scale = model.preprocessing.genes, model.preprocessing.describe_scale()
        return cls(model.schema, genes, seen, model.provenance(), request, intervals, scale)

    def obs(
        self,
        names: np.ndarray,
        factual: np.ndarray,
        labels: np.ndarray,
        library: np.ndarray | None = None,
        own_numbers: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """Return ``obs`` of the results of consecutive cells.

        Parameters
        ----------
        names
            The cells' names, str objects [n].
        factual
            Their own label codes, int32 [n x m].
        labels
            Label codes after the interventions, int32 [rows x m].
        library
            Library sizes that counts were made for, float64 [n].
        own_numbers, numbers
            Standardised numbers of the cells, float32 [n x c], and of the rows, [rows x c], of concepts that have some.
        """
        import pandas as pd

        per_cell, draws = self.request.rows_per_cell, self.request.kept_draws
        source = np.repeat(np.arange(len(names)), per_cell)
        titles = [each.name for each in self.request.interventions]
        intervention = np.tile(np.repeat(np.arange(len(titles)), draws), len(names))
        columns: dict[str, Any] = {
            "source_cell": pd.Categorical.from_codes(source, categories=pd.Index(names, dtype=object)),
            "intervention": pd.Categorical.from_codes(intervention, categories=titles),
        }
        if self.request.store != "summary":
            columns["draw"] = np.tile(np.arange(draws, dtype=np.int32), len(names) * len(titles))
        for i, column in enumerate(label_columns(self.schema, self.request.interventions)):
            own = column.values(factual[:, i], own_numbers)
            columns[column.concept.name] = column.values(labels[:, i], numbers, intervention)
            columns[f"{column.concept.name}_factual"] = own.repeat(per_cell)
        columns["unseen_combination"] = unseen_combinations(labels, self.combinations)
        if self.schema.has_values:
            beyond = [each.extrapolates(self.schema) for each in self.request.interventions]
            columns[EXTRAPOLATED] = np.array(beyond)[intervention]
        if library is not None:
            columns[LIBRARY_SIZE] = np.repeat(library, per_cell)
        return pd.DataFrame(columns, index=pd.Index(_row_names(names, titles, draws), dtype=object))

    def example(self, cells: int) -> pd.DataFrame:
        """Return ``obs`` of so many cells that there are not: its columns and their types."""
        names = np.array([f"cell {i}" for i in range(cells)], dtype=object)
        factual = np.zeros((cells, len(self.schema.concepts)), dtype=np.int32)
        numbers = np.zeros((cells, len(self.schema.numeric)), dtype=np.float32)
        labels, after = (np.repeat(array, self.request.rows_per_cell, axis=0) for array in (factual, numbers))
        library = np.ones(cells) if self.request.library else None
        return self.obs(names, factual, labels, library, numbers, after)

    def own_columns(self) -> list[str]:
        """Return the columns of ``obs`` that results have of their own."""
        concepts = [name for each in self.schema.names for name in (each, f"{each}_factual")]
        last = [EXTRAPOLATED] * self.schema.has_values + [LIBRARY_SIZE] * bool(self.request.library)
        draw = [] if self.request.store == "summary" else ["draw"]
        return ["source_cell", "intervention", *draw, *concepts, "unseen_combination", *last]

    def select_annotations(self, cells: AnyCells, kept: Kept) -> Annotations:
        """Select the annotations of cells that travel into results; see `causcell.cells.annotations`."""
        places = [] if self.request.store != "embeddings" else [EMBEDDINGS.removeprefix("obsm/")]
        columns = {"own": self.own_columns(), "concepts": self.schema.names, "places": places}
        return select_annotations(cells, self.genes, kept, **columns)

    def count_unseen(self, obs: pd.DataFrame) -> Unseen:
        """Count the counterfactual rows of ``obs`` whose labels no training cell carries together."""
        counterfactual = np.array([bool(each.targets) for each in self.request.interventions])
        marked = obs["unseen_combination"].to_numpy() & counterfactual[obs["intervention"].cat.codes]
        if not marked.any():
            return Unseen()
        named = obs.loc[marked, list(self.schema.names)].drop_duplicates().astype(str).agg(" + ".join, axis=1)
        return Unseen(int(marked.sum()), tuple(named)[:_EXAMPLES])

    def var(self, missing: Sequence[str], annotations: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return ``var``: the panel, which of its genes were filled, and the source's columns [G x columns]."""
        import pandas as pd

        genes = pd.Index(self.genes, dtype=object)
        var = pd.DataFrame({"filled": np.isin(list(self.genes), list(missing))}, index=genes)
        if annotations is None or not annotations.shape[1]:
            return var
        return pd.concat([var, annotations.set_axis(genes)], axis=1)

    def uns(self, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return ``uns``: what made the results, with further facts, and what ``X`` is."""
        request = self.request
        made = {
            "seed": request.seed,
            "estimate": request.settings.estimate,
            "solver": asdict(request.settings),
            "store": request.store,
            "mode": request.mode,
            "match_parents": request.match_parents,
            "draws": request.draws,
            "interventions": [each.name for each in request.interventions],
            "expression": "counts" if request.library else "log1p",
            **({"library_size": request.library} if request.library else {}),
            **({"target": request.target} if self.schema.has_values or request.target == "own" else {}),
            **_describe_arrays(request, self.scale),
        }
        uns: dict[str, Any] = {"causcell": {**self.provenance, **self.intervals, **made, **(facts or {})}}
        return {**uns, **LOG1P} if request.store in ("expression", "summary") else uns

    def to_anndata(
        self, blocks: Iterable[Block], missing: Sequence[str], annotations: Annotations | None = None
    ) -> anndata.AnnData:
        """Gather blocks of all cells as one AnnData, with what travels of their annotations.

        It warns of combinations of labels never seen.
        """
        import anndata

        gathered = list(blocks)
        obs = self.obs(**concatenate_cells(gathered))
        self.count_unseen(obs).warn(len(obs))
        obsm: dict[str, np.ndarray] = {}
        var = None
        if annotations is not None:
            cells = sum(len(block.names) for block in gathered)
            obs, obsm = repeat_annotations(obs, *annotations.read(slice(0, cells)))
            var = annotations.var
        result = anndata.AnnData(obs=obs, var=self.var(missing, var), obsm=obsm, uns=self.uns())
        for place in gathered[0].arrays:
            array = _join_dense([block.arrays[place] for block in gathered])
            element, _, name = place.partition("/")
            if name:
                getattr(result, element)[name] = array
            else:
                result.X = array
        return result


def _join_dense(pieces: Sequence[Any]) -> np.ndarray:
    """Join rows of consecutive blocks, [rows x columns]; CSR matrices are written out."""
    from scipy import sparse

    if not sparse.issparse(pieces[0]):
        return np.asarray(pieces[0]) if len(pieces) == 1 else np.concatenate(pieces)
    bounds = np.cumsum([0, *(piece.shape[0] for piece in pieces)])
    joined = np.empty((bounds[-1], pieces[0].shape[1]), dtype=pieces[0].dtype)
    for start, piece in zip(bounds, pieces, strict=False):
        piece.toarray(out=joined[start : start + piece.shape[0]])
    return joined


def concatenate_cells(blocks: Sequence[Block]) -> dict[str, Any]:
    """Gather what `ResultTable.obs` is made of, arrays by argument, from blocks of consecutive cells."""
    gathered = {
        name: np.concatenate([getattr(block, name) for block in blocks]) for name in ("names", "factual", "labels")
    }
    for name in ("library", "own_numbers", "numbers"):  # which not all results have
        parts = [getattr(block, name) for block in blocks if getattr(block, name) is not None]
        gathered |= {name: np.concatenate(parts)} if parts else {}
    return gathered


def _describe_arrays(request: Request, scale: str) -> dict[str, Any]:
    """Say in words what ``X`` and layers are, with their unit."""
    cell = _ESTIMATES.get(request.settings.estimate, "expression")
    effect = f"{cell} less that of the factual cell with the same noise, {scale}"
    if request.store == "summary":
        layers = {
            "deviation": f"standard deviation over draws of {cell}, {scale}",
            "effect": f"mean over draws of {effect}",
            "lower": "lower end of the effect's interval",
            "upper": "upper end of the effect's interval",
        }
        return {"X": f"mean over draws of {cell}, {scale}", "layers": layers}
    if request.store == "embeddings":
        return {"X": "nothing: obsm['X_causcell'] holds embeddings of the concepts, side by side"}
    if request.store == "counts":
        return {"X": f"counts of a sampled cell: the panel's part of the total in obs[{LIBRARY_SIZE!r}]"}
    return {"X": effect if request.store == "effects" else f"{cell}, {scale}"}


def repeat_annotations(
    obs: pd.DataFrame, columns: pd.DataFrame, obsm: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Repeat annotations of cells for all rows of each.

    Parameters
    ----------
    obs
        ``obs`` of the rows, consecutive ones of each cell.
    columns, obsm
        Annotations of the cells, [n x columns] and [n x k] by name.

    Returns
    -------
    ``obs`` with the columns after its own, and [rows x k] by name.
    """
    import pandas as pd

    source = np.repeat(np.arange(len(columns)), len(obs) // max(len(columns), 1))
    if columns.shape[1]:  # pandas warns of joining an index of no columns
        obs = pd.concat([obs, columns.iloc[source].set_axis(obs.index)], axis=1)
    return obs, {name: values[source] for name, values in obsm.items()}


def _row_names(cells: np.ndarray, interventions: list[str], draws: int) -> np.ndarray:
    if len(interventions) * draws == 1:
        return cells
    suffixes = [f"|{name}" + (f"|{draw}" if draws > 1 else "") for name in interventions for draw in range(draws)]
    return np.array([cell + suffix for cell in cells for suffix in suffixes], dtype=object)


def check_row_names(cells: PanelCells, request: Request) -> None:
    """Raise `CellNameError` if two rows would have one name.

    That takes two interventions of which one's name ends in ``|`` and the other's, and a cell whose name is another's
    with what the longer one begins with.
    """
    suffixes = [f"|{each.name}" for each in request.interventions]
    surplus = tuple({a[: -len(b)] for a in suffixes for b in suffixes if a != b and a.endswith(b)})
    if not surplus:
        return
    for rows in batches(len(cells), _SLICE):
        names = [name for name in cells.read_names(rows) if name.endswith(surplus)]
        shorter = [name[: -len(end)] for name in names for end in surplus if name.endswith(end)]
        if np.isin(name_digests(shorter), cells.cells.name_digests).any():
            raise CellNameError(
                f"row names made of cell and intervention are not unique, such as those of {format_list(names)}; "
                "rename cells whose names contain '|'"
            )


def warn_unmatched(rows: int, total: int) -> None:
    """Warn if rows found no reference cell with the parents' labels."""
    if rows:
        warn(
            f"{rows:,} of {total:,} rows found no reference cell with the target label and the parents' labels "
            "together; theirs was drawn by the target label alone"
        )
