"""The values of a sample of cells: their scale, totals, genes without a count, and what training refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.batching import batches
from causcell.cells.check.report import Finding
from causcell.cells.collection import Cells
from causcell.cells.panel import check_gene_names
from causcell.cells.values import check_values, guess_scale
from causcell.errors import CausCellError
from causcell.preprocessing import TARGET_SUM, Scale

if TYPE_CHECKING:
    import pandas as pd

_SAMPLE = 1024
_BLOCK = 64
"""Cells looked at, in evenly spaced blocks, which files read faster than single rows."""

_WHOLE, _ALIKE = 0.98, 0.5
"""Share of a column below which a file's genes are some of those it counts; correlation of logarithms with the sums."""


def study_expression(cells: Cells, scale: Scale | None) -> tuple[dict[str, Any], list[Finding]]:
    """Look at a sample of the values.

    Parameters
    ----------
    cells
        Opened cells.
    scale
        What the values are declared to be; guessed where not given.

    Returns
    -------
    dict
        ``scale`` (`None` where neither fits), ``text``, ``sampled`` cells, ``total`` (median), ``nonzero`` (share).
    list of Finding
        What training refuses, and what is odd.
    """
    facts: dict[str, Any] = {"scale": scale, "text": "no values", "sampled": 0, "total": 0.0, "nonzero": 0.0}
    findings: list[Finding] = []
    if not cells.genes:
        return facts, [_error("no_genes", "the data have no genes")]
    try:
        check_gene_names(cells.genes)
    except CausCellError as error:
        findings.append(_error("duplicated_genes", str(error)))
    try:
        values, names, obs = _sample(cells)
    except CausCellError as error:
        return facts, [*findings, _error("values", str(error))]
    try:
        guessed = scale or guess_scale(values)
        check_values(values, guessed, names)
    except CausCellError as error:
        text = f"values that are no {scale or 'counts or log1p values'}"
        return facts | {"scale": None, "text": text}, [*findings, _error("values", str(error))]
    totals = np.asarray((values if guessed == "counts" else _expm1(values)).sum(axis=1), dtype=np.float64).ravel()
    total = float(np.median(totals))
    facts |= {
        "scale": guessed,
        "sampled": len(names),
        "total": total,
        "nonzero": float((np.asarray(values.data if hasattr(values, "indptr") else values) != 0).sum() / _size(values)),
        "text": _describe(guessed, totals),
    }
    findings += _find_odd_values(values, totals, guessed, declared=scale is not None)
    if guessed == "counts":
        findings += _find_totals(obs, totals)
    return facts, findings


def _find_odd_values(values: Any, totals: np.ndarray, scale: Scale, *, declared: bool) -> list[Finding]:
    """Find empty cells, an undeclared scale other than counts, and genes that no cell of the sample expresses."""
    findings = []
    if scale == "counts" and (totals == 0).any():
        text = (
            f"{int((totals == 0).sum())} of {len(totals)} cells sampled have no counts at all; remove them "
            "(scanpy.pp.filter_cells(adata, min_counts=1))"
        )
        findings.append(_error("empty_cells", text))
    if not declared and scale == "log1p":
        text = (
            "the values look like log1p values; train with expression='log1p', or on raw counts, which carry more "
            "(often in adata.raw, raw=True, or in a layer)"
        )
        findings.append(Finding("scale", "note", (), text))
    silent = int((np.asarray((values != 0).sum(axis=0)).ravel() == 0).sum())
    if silent:
        text = (
            f"{silent:,} of {values.shape[1]:,} genes are zero in all of the {len(totals):,} cells sampled; highly "
            "variable genes leave them out, genes='all' does not"
        )
        findings.append(Finding("silent_genes", "note", (), text, {"genes": silent}))
    return findings


def _find_totals(obs: pd.DataFrame, totals: np.ndarray) -> list[Finding]:
    """Find columns that look like cells' totals over more genes than are here, which ``totals=`` would take."""
    found = {}
    varied = totals.min() > 0 and np.ptp(totals) > 0
    for name in obs.select_dtypes([np.integer, np.floating], "timedelta") if varied else ():
        values = obs[name].to_numpy(np.float64, na_value=np.nan)
        if not (np.isfinite(values) & (values >= totals - 0.5)).all() or np.ptp(values) == 0:
            continue
        share = float(np.median(totals / values))
        if share < _WHOLE and np.corrcoef(np.log(values), np.log(totals))[0, 1] > _ALIKE:
            found[str(name)] = share
    texts = (
        f"obs[{name!r}] looks like cells' totals over more genes than are here ({share:.0%} of a total, in "
        f"the median): if the file was cut down to some genes, train with totals={name!r}, or cells are "
        "scaled as if the other genes did not exist"
        for name, share in found.items()
    )
    return [
        Finding("totals", "note", (), text, {"share": share}) for text, share in zip(texts, found.values(), strict=True)
    ]


def _error(kind: str, text: str) -> Finding:
    return Finding(kind, "error", (), text)


def _sample(cells: Cells) -> tuple[Any, np.ndarray, pd.DataFrame]:
    """Read up to `_SAMPLE` cells in evenly spaced blocks: values [s x genes], names [s] and rows of ``obs``."""
    import pandas as pd
    from scipy import sparse

    if len(cells) <= _SAMPLE:
        blocks = list(batches(len(cells), _BLOCK))
    else:
        starts = np.linspace(0, len(cells) - _BLOCK, _SAMPLE // _BLOCK).astype(int)
        blocks = [slice(int(start), int(start) + _BLOCK) for start in starts]
    values = [cells.values(block) for block in blocks]
    names = np.concatenate([cells.read_names(block) for block in blocks])
    obs = pd.concat([cells.obs.iloc[block] for block in blocks])
    if all(sparse.issparse(block) for block in values):
        return sparse.vstack(values, format="csr"), names, obs
    return np.concatenate([np.asarray(block) for block in values]), names, obs


def _expm1(values: Any) -> Any:
    return values.astype(np.float64).expm1() if hasattr(values, "indptr") else np.expm1(values.astype(np.float64))


def _size(values: Any) -> int:
    return int(values.shape[0] * values.shape[1])


def _describe(scale: Scale, totals: np.ndarray) -> str:
    low, middle, high = np.quantile(totals, [0.01, 0.5, 0.99])
    if scale == "counts":
        return f"raw counts, {middle:,.0f} a cell ({low:,.0f} to {high:,.0f})"
    if high - low < 0.01 * middle:
        same = "" if abs(middle / TARGET_SUM - 1) < 0.01 else f", not {TARGET_SUM:,.0f}"
        return f"log1p values whose expm1 sums to {middle:,.0f} a cell{same}"
    return f"log1p values whose expm1 sums to {low:,.0f} to {high:,.0f} a cell"
