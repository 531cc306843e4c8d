"""A model of counts and values of other scales, by hand, for tests of what is read."""

import numpy as np
from scipy import sparse

from causcell.preprocessing import SUM_QUANTILES, Preprocessing

GENES = tuple(f"G{i}" for i in range(60))
PANEL = GENES[:20]


def draw_counts(cells: int = 80, seed: int = 0, depth: float = 10.0) -> np.ndarray:
    """Counts float64 [cells x 60]: cells of different depths, genes of different rates, none of the cells empty."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 1, len(GENES)))
    scale = depth * rng.gamma(4, 0.25, (cells, 1))
    counts = rng.poisson(rate * rng.gamma(2, 0.5, (cells, len(GENES))) * scale).astype(float)
    counts[:, 0] += 1
    return counts


def normalised(counts: np.ndarray, total: float | None = 1e4, base: float = np.e) -> np.ndarray:
    """log_base(1 + counts scaled to a total a cell), float32; `None`: to the median of the cells' totals."""
    sums = counts.sum(axis=1, keepdims=True)
    scaled = counts / sums * (np.median(sums) if total is None else total)
    return (np.log1p(scaled) / np.log(base)).astype(np.float32)


def trained_on(counts: np.ndarray, scale: str = "counts", totals: str | None = None) -> Preprocessing:
    """What training on these counts of `GENES` writes, panel `PANEL`, in float64 throughout."""
    panel = np.log1p(counts[:, : len(PANEL)] / counts.sum(axis=1, keepdims=True) * 1e4)
    of_counts = scale == "counts" and totals is None
    return Preprocessing(
        PANEL,
        scale,
        GENES if of_counts else (),
        panel.mean(axis=0).astype(np.float32),
        np.maximum(panel.std(axis=0), 0.1).astype(np.float32),
        totals=totals,
        shares=(counts / counts.sum(axis=1, keepdims=True)).mean(axis=0).astype(np.float32) if of_counts else None,
        panel_sums=np.quantile(np.expm1(panel).sum(axis=1), SUM_QUANTILES),
    )


def to_form(values: np.ndarray, form: str) -> np.ndarray | sparse.csr_matrix:
    """Values as a dense array or in CSR."""
    return values if form == "dense" else sparse.csr_matrix(values)
