"""What the systems on scvi-tools share: scVI, scGen, CPA and Biolord. No adapter of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scvi
import torch
from anndata import AnnData
from scipy import sparse
from scvi.distributions import NegativeBinomial

BATCH = 256
PREDICTIVE_SAMPLES = 25
"""Samples a cell that an expectation of log1p is averaged over."""


class CountModel:
    """Answers of a system of counts: those about cells as they are, and those about cells with labels set, are one."""

    def expect(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        """Average log1p of predictive samples of cells with labels set [n x G]."""
        raise NotImplementedError

    def draw(self, cells: AnnData, do: dict[str, str], draws: int, seed: int) -> np.ndarray:
        """Draw predictive samples of cells with labels set [draws x n x G]."""
        raise NotImplementedError

    def mean(self, cells: AnnData) -> np.ndarray:
        return self.expect(cells, {})

    def sample(self, cells: AnnData, draws: int = 1, seed: int = 0) -> np.ndarray:
        return self.draw(cells, {}, draws, seed)

    def counterfactual_mean(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        return self.expect(cells, do)

    def counterfactual_sample(self, cells: AnnData, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        return self.draw(cells, do, draws, seed)


def prepare(job: Any) -> None:
    """Seed torch and numpy, limit threads, and silence what scvi-tools and Lightning print."""
    warnings.filterwarnings("ignore")
    scvi.settings.seed = job.seed
    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "biolord", "scgen"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(job.threads)


def accelerator(job: Any) -> str:
    """Return Lightning's name of the job's device."""
    return "gpu" if job.device == "cuda" else "cpu"


def version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.metadata.version(package)


def intervened(job: Any) -> list[str]:
    """Return the concepts that the job intervenes on, then the others."""
    asked = [concept for each in job.interventions for concept in each["do"]]
    return list(dict.fromkeys([*(name for name in asked if name in job.concepts), *job.concepts]))


def control_label(job: Any, concept: str, cells: AnnData) -> str:
    """Return the label that cells are taken from in the job's interventions on a concept, or the most frequent one."""
    for each in job.interventions:
        if concept in each["do"] and concept in each["where"]:
            return str(each["where"][concept])
    return str(cells.obs[concept].value_counts().index[0])


def with_log1p(cells: AnnData, concepts: list[str]) -> AnnData:
    """Copy cells with the logarithms of their counts as ``X``, dense: for systems of continuous values."""
    return AnnData(np.asarray(cells.layers["log1p"].todense()), obs=_labels(cells, concepts), var=cells.var.copy())


def with_counts(cells: AnnData, concepts: list[str]) -> AnnData:
    """Copy cells with their counts as ``X``."""
    return AnnData(sparse.csr_matrix(cells.X), obs=_labels(cells, concepts), var=cells.var.copy())


def _labels(cells: AnnData, concepts: list[str]) -> Any:
    return cells.obs[concepts].astype(str).astype("category")


def relabelled(cells: AnnData, do: dict[str, str]) -> AnnData:
    """Copy cells with labels set, their expression as it was."""
    changed = cells.copy()
    for concept, label in do.items():
        changed.obs[concept] = str(label)
    return changed


def split_indices(cells: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the cells to train on, and of those to stop by."""
    validation = cells.obs["validation"].to_numpy(dtype=bool)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def log1p_of_counts(counts: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of counts [... x n x G] at 10,000 of each cell's total [n x 1] over all its genes."""
    return torch.log1p(counts * (10_000 / total))


def expect_log1p(predictive: NegativeBinomial, total: torch.Tensor) -> torch.Tensor:
    """Average log1p at 10,000 of a cell's total over one sample of each of several negative binomials.

    Averaged is what log1p differs by from that of one count, wherever there is one, whose expectation is known: by far
    the most of a sample's noise is in whether a gene is seen.

    Parameters
    ----------
    predictive
        Of counts [samples x n x G].
    total
        Counts over all genes [n x 1].
    """
    mean, dispersion = predictive.mu, predictive.theta
    seen = 1 - (dispersion / (dispersion + mean)) ** dispersion
    one = torch.log1p(10_000 / total)
    counts = predictive.sample()
    return (one * seen + log1p_of_counts(counts, total) - one * (counts > 0)).mean(dim=0)


def totals(cells: AnnData) -> torch.Tensor:
    """Return each cell's counts over all its genes [n x 1]."""
    return torch.as_tensor(cells.obs["total"].to_numpy(dtype=np.float32))[:, None]


def saved_size(model: Any) -> int:
    """Return the bytes of a model as its own ``save`` writes it, without cells."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, overwrite=True, save_anndata=False)
        return sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file())
