"""Digests of the cells of an atlas, by which its plan knows them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from causcell._internal.batching import batches
from causcell.cells.collection import AnyCells
from causcell.cells.panel_cells import PanelCells
from causcell.cells.unique_names import LARGE

TEXTS = "texts:"
"""What digests of names as text begin with."""

_SAMPLED_CELLS = 256
_READ_AT_ONCE = 32
_SLICE = 2**18


class SourceDigests(BaseModel):
    """SHA-256 digests of the cells, and how their values are read.

    Attributes
    ----------
    names
        Digest of all cells' names, in order. Of more than 8 million it begins with ``texts:`` and is one of the names
        as text; an atlas of an earlier version has one of each name's digest, and goes on with that.
    labels
        Digest of all cells' labels of the model's concepts, and of their numbers where concepts have some.
    genes
        Digest of the files' genes, in order.
    values
        Digest of the panel expression of up to 256 cells, evenly spaced: files that differ elsewhere alone are not
        told apart.
    raw, totals, round_counts
        How values are read; see `causcell.cells.panel_cells.Reading`. What is as ever is left out of the plan's text,
        so that plans of earlier versions keep their digests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: str
    labels: str
    genes: str
    values: str
    raw: bool = False
    totals: str | None = None
    round_counts: bool = False

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        chosen = {name for name in ("raw", "totals", "round_counts") if getattr(self, name)}
        digests = {"names", "labels", "genes", "values"}
        return {name: value for name, value in dump(self).items() if name in digests | chosen}


def digest_source(cells: PanelCells) -> SourceDigests:
    """Digest cells as they are read for a model."""
    spaced = np.unique(np.linspace(0, len(cells) - 1, min(_SAMPLED_CELLS, len(cells))).astype(int))
    values = (cells.read_expression(spaced[rows]).tobytes() for rows in batches(len(spaced), _READ_AT_ONCE))
    return SourceDigests(
        names=digest_names(cells.cells, texts=len(cells) > LARGE),
        labels=_digest(_label_bytes(cells)),
        genes=_digest("\n".join([str(part.key), *part.genes]).encode() for part in cells.cells.parts),
        values=_digest(values),
        **cells.chosen,
    )


def digest_names(cells: AnyCells, *, texts: bool) -> str:
    """Digest all cells' names: by the digest of each, or as texts, which takes a fraction of the time."""
    if texts:
        return TEXTS + _digest(part.texts_digest.encode() for part in cells.parts)
    return _digest(part.name_digests.astype("<u8", copy=False).tobytes() for part in cells.parts)


def _label_bytes(cells: PanelCells) -> Iterator[bytes]:
    slices = batches(len(cells), _SLICE)
    labels, numbers = cells.label_rows, cells.number_rows
    yield from (labels[rows].astype("<i4", copy=False).tobytes() for rows in slices)
    if numbers is not None:
        yield from (numbers[rows].astype("<f4", copy=False).tobytes() for rows in slices)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
