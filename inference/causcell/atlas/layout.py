"""Layout of an atlas: rows of its shards and chunks, and ``X`` as a CSR matrix, which leaves out zeros, or dense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from causcell._internal.choices import check_choice
from causcell.counterfactual.outputs import OutputKind
from causcell.counterfactual.request import Request
from causcell.diffusion.solvers import Solver
from causcell.errors import ConfigurationError, format_list

Layout = Literal["csr", "dense"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

DENSER = 8
"""A chunk of a dense array has so many times the values of one of a CSR matrix, which are nonzero."""

GROUPED_FROM = 1000
"""Shards up to which each has files of annotations of its own, a dozen or so, as in earlier versions."""

GROUP = 64
"""Shards of which an atlas of more has the annotations in one file an array."""

_SPARSE: frozenset[OutputKind] = frozenset({"expression", "counts"})
"""Kinds of output of which most values are zero, if they are drawn."""


def choose_layout(layout: str | None, request: Request, solver: Solver, places: Iterable[str]) -> Layout:
    """Return the layout that was asked for; else CSR for what has many zeros, which a posterior mean has none of.

    Parameters
    ----------
    layout
        A layout, or `None`.
    request, solver
        What is generated.
    places
        Places of the arrays that are kept.

    Raises
    ------
    ConfigurationError
        An unknown layout, or a CSR matrix of what can't be one.
    """
    if layout is None:
        return "csr" if request.store in _SPARSE and request.dtype != "float16" and solver.draw else "dense"
    chosen = check_choice(layout, LAYOUTS, "layout")
    if chosen == "csr":
        check_csr(request, places)
    return chosen


def check_csr(request: Request, places: Iterable[str]) -> None:
    """Raise `ConfigurationError` for what can't be kept as a CSR matrix."""
    if request.dtype == "float16":
        raise ConfigurationError(
            "layout='csr' and dtype='float16' exclude each other, as SciPy computes with no sparse matrix of float16; "
            "take dtype='float32', or layout='dense'"
        )
    if set(places) != {"X"}:
        raise ConfigurationError(
            f"layout='csr' is one of X alone, and store={request.store!r} keeps {format_list(places)}; take "
            "layout='dense'"
        )


def fit_rows(cells: int, rows_per_cell: int, batch_size: int, chunk_rows: int, shard_rows: int) -> tuple[int, int]:
    """Return cells of a shard and rows of a chunk, near to what is wanted: whole batches and chunks in a shard."""
    per_shard = max(shard_rows // rows_per_cell, 1)
    if per_shard > batch_size:
        per_shard -= per_shard % batch_size
    if per_shard >= cells:
        return cells, min(max(chunk_rows, 1), cells * rows_per_cell)
    rows = per_shard * rows_per_cell
    return per_shard, max(size for size in range(1, max(min(chunk_rows, rows), 1) + 1) if rows % size == 0)
