"""Cells of two types that a stimulus moves by 1 in every gene, and a predictor that moves them by any number."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np

from causcell.concepts import Concept, ConceptSchema
from causcell.evaluation.data import EvaluationData

GENES = 30
SCHEMA = ConceptSchema((Concept("cell_type", ("B", "T")), Concept("stim", ("ctrl", "IFN"))))


@dataclass(frozen=True)
class Mover:
    """Predicts the cells themselves, moved by a number where stim is set, with noise or as they are."""

    by: float
    noise: float = 0.0
    schema = SCHEMA
    modes = ("do",)
    preprocessing = SimpleNamespace(genes=tuple(f"GENE{i}" for i in range(GENES)))

    def covers(self, cells: anndata.AnnData, do: Any, estimate: Any = None) -> np.ndarray:
        return np.ones(cells.n_obs, dtype=bool)

    def predict(self, cells: anndata.AnnData, do: Any, *, estimate: str, mode: str = "do", seed: int = 0) -> Any:
        noise = np.random.default_rng(seed).normal(0, self.noise, cells.shape)
        return cells.X + self.by * ("stim" in do) + noise

    def expect(self, cells: anndata.AnnData, do: Any, *, mode: str = "do", seed: int = 0) -> Any:
        return cells.X + self.by * ("stim" in do)


def data_of(predictor: Any, *, seen: bool) -> EvaluationData:
    """Cells of two types; IFN moves them by 1. Of T cells none that was moved is trained on, unless ``seen``."""
    rng = np.random.default_rng(1)
    labels = np.array([(i % 2, i // 2 % 2) for i in range(400)], dtype=np.int32)
    values = 5 + 3 * labels[:, :1] + labels[:, 1:] + rng.normal(0, 0.5, (400, GENES))
    cells = anndata.AnnData(values.astype(np.float32))
    test = np.arange(400) % 5 < 2
    training = ~test if seen else ~test & ~(labels == 1).all(axis=1)
    rows = [np.flatnonzero(each) for each in (test, training)]
    return EvaluationData(predictor, cells, cells.X, labels, *rows, *rows, np.unique(labels[training], axis=0))
