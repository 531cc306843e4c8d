"""Concepts read from columns of ``obs``: which names they may have, their labels, and their graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from causcell._internal.choices import suggest
from causcell._internal.labels import label_column as label_column
from causcell._internal.labels import require_column
from causcell.concept_reading import LabelFeatures, read_concept, split_kind
from causcell.concepts import ConceptSchema, Edge
from causcell.errors import ConceptError, UnknownConceptError, format_list

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_UNWRITABLE = ("_index", ".", "..")
"""Names that AnnData files, or the folders of zarr, keep for themselves."""

_LONGEST_NAME = 200
"""Bytes; file systems allow 255, and results add to a name."""


def schema_from_obs(
    obs: pd.DataFrame,
    concepts: Sequence[str],
    edges: Iterable[tuple[str, str]] = (),
    *,
    features: Mapping[str, LabelFeatures] | None = None,
    controls: Mapping[str, str] | None = None,
    rows: np.ndarray | None = None,
) -> ConceptSchema:
    """Make the schema for labelled cells.

    Labels are sorted (by value where all are numbers), except those of an ordered categorical column, which
    keep its order; labels that no cell carries are left out.

    Parameters
    ----------
    obs
        Annotations of cells, with a column of labels for each concept.
    concepts
        Names of the columns, each with ``:KIND`` behind it or without; see `causcell.concept_reading`.
    edges
        Causal edges, (parent, child).
    features, controls
        Features of labels, and the label of cells without members of a set, by concept.
    rows
        Rows of the training cells, int64, which say what numbers and sets there are; all where none are given.

    Raises
    ------
    UnknownConceptError
        There is no such column, or features or a control label are given for a concept that is not named.
    ConceptError
        A column holds no labels: infinite numbers, fewer than two labels, more than 1,000; or it is not of its kind.
    ConceptGraphError
        The edges are no directed acyclic graph over the concepts.

    Examples
    --------
    >>> import pandas as pd
    >>> obs = pd.DataFrame({"stim": ["IFN", "ctrl", "ctrl"], "cell_type": ["T", "B", None]})
    >>> schema = schema_from_obs(obs, ["stim", "cell_type"], [("stim", "cell_type")])
    >>> schema["cell_type"].labels
    ('B', 'T')
    >>> schema.encode(obs)
    array([[ 0,  1],
           [ 1,  0],
           [ 1, -1]], dtype=int32)
    """
    kinds = dict(map(split_kind, concepts))
    if len(kinds) < len(concepts):
        raise ConceptError(f"a concept is named twice: {format_list(concepts)}")
    check_names(list(kinds))
    features, controls = features or {}, controls or {}
    for name in (*features, *controls):
        if name not in kinds:
            option = "label features" if name in features else "a control label"
            raise UnknownConceptError(
                f"{option} are given for {name!r}, which is no concept; {suggest(name, kinds)}the concepts are "
                f"{format_list(kinds)}"
            )
    found = tuple(
        read_concept(obs, name, kind, features=features.get(name), control=controls.get(name), rows=rows)
        for name, kind in kinds.items()
    )
    return ConceptSchema(found, tuple(Edge(parent, child) for parent, child in edges))


def check_names(concepts: Sequence[str]) -> None:
    """Raise `ConceptError` for names that files or results could not hold; models that have them are still opened."""
    for name in concepts:
        if name in _UNWRITABLE or "\\" in name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
            shown = name if len(name) <= 40 else f"{name[:40]}..."
            raise ConceptError(
                f"concept name {shown!r} can't be used: files name columns and folders by it, so that it has at most "
                f"{_LONGEST_NAME} bytes, no backslash and no control character, and is none of "
                f"{format_list(_UNWRITABLE)}; rename the column of obs"
            )
    clash = [name for name in concepts if name.endswith("_predicted") and name.removesuffix("_predicted") in concepts]
    if clash:
        raise ConceptError(
            f"concept {clash[0]!r} has the name that embed gives to the label read for another concept; rename the "
            "column of obs"
        )


def check_columns(columns: Sequence[str], concepts: Sequence[str]) -> None:
    """Raise `UnknownConceptError` for a concept that is no column of ``obs``."""
    for name in concepts:
        require_column(columns, name)
