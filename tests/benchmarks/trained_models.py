"""Models that the scripts of this folder train, export and open for a moment, and the simulator's settings."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata
import numpy as np
import pandas as pd

from causcell import Generator
from causcell.errors import CausCellWarning
from causcell.evaluation.known_truth import log_normalise
from causcell.evaluation.simulator import SCHEMA
from causcell_export import export, exporter
from causcell_training import TrainConfig, fit
from causcell_training.config import load_config

SIMULATOR_EDGES = tuple(f"{edge.parent}:{edge.child}" for edge in SCHEMA.edges)
SIMULATOR_SETTINGS: dict[str, Any] = {
    "concept": SCHEMA.names,
    "edge": SIMULATOR_EDGES,
    "genes": "all",
    "model.embedding": 8,
    "model.encoder_width": 64,
    "model.width": 64,
    "model.blocks": 1,
    "optimisation.learning_rate": 3e-3,
    "optimisation.validate_every": 5,
    "optimisation.accelerator": "cpu",
}
SIMULATOR_DO = {"treatment": "treated", "donor": "d3", "cell_type": "C", "state": "active"}
STEPS = 300
KANG_CONCEPTS = ("stim", "donor", "cell_type")
KANG_SETTINGS: dict[str, Any] = {
    "concept": KANG_CONCEPTS,
    "edge": ("donor:cell_type",),
    "model.width": 64,
    "model.encoder_width": 128,
    "optimisation.epochs": 60,
    "optimisation.accelerator": "cpu",
}
"""A smaller model and fewer epochs than the defaults, so that many can be trained: 50 s each on one core."""
PANEL = 700


def simulator_config(cells: int, overrides: Mapping[str, Any]) -> TrainConfig:
    """Settings of a model of that many simulated cells: about 300 steps, and what ``overrides`` say."""
    epochs = max(10, round(STEPS / max(1, 0.9 * cells // 128)))
    return load_config(overrides={**SIMULATOR_SETTINGS, "optimisation.epochs": epochs, **overrides})


@contextmanager
def trained(
    cells: anndata.AnnData, config: TrainConfig, split: Any = None, panel: Sequence[str] = ()
) -> Iterator[Generator]:
    """Open a model trained on the cells; export verifies it, and leaves out the measures of its presets.

    ``panel`` names the genes, in place of the config's choice.
    """
    with tempfile.TemporaryDirectory() as folder:
        if panel:
            (Path(folder) / "panel.txt").write_text("\n".join(panel) + "\n")
            config = config.model_copy(update={"genes": str(Path(folder) / "panel.txt")})
        run = fit(cells, Path(folder) / "run", config=config, split=split)
        with patch.object(exporter, "with_quality", lambda manifest, root, held_out, **_: manifest):
            models = export(run, Path(folder) / "models")
        with Generator.open(models, threads=1) as generator:
            yield generator


def mean_estimates(
    generator: Generator, cells: anndata.AnnData, do: Mapping[str, str] | None = None, *, draws: int
) -> np.ndarray:
    """Mean estimate of each cell, as it is or under an intervention, over draws, float64 [n x G].

    With and without an intervention the draws are the same.
    """
    options: dict[str, Any] = {"preset": "mean", "draws": draws}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
        result = generator.counterfactual(cells, dict(do), **options) if do else generator.reconstruct(cells, **options)
    return np.asarray(result.X, dtype=np.float64).reshape(cells.n_obs, draws, -1).mean(axis=1)


def predict_effects(generator: Generator, cells: anndata.AnnData, do: Mapping[str, str], *, draws: int) -> np.ndarray:
    """Effect of an intervention on each cell's mean estimate, over draws, float64 [n x G]."""
    return mean_estimates(generator, cells, do, draws=draws) - mean_estimates(generator, cells, draws=draws)


def most_varying_genes(cells: anndata.AnnData, count: int, always: Sequence[str] = ()) -> list[str]:
    """Names of the genes of highest variance on the log scale, and of those of ``always`` that the cells have."""
    variance = log_normalise(cells).var(axis=0)
    chosen = set(cells.var_names[np.argsort(-variance, kind="stable")[:count]]) | set(always)
    return [name for name in cells.var_names if name in chosen]


def read_kang(
    path: str | Path, split: str | Path, always: Sequence[str] = ()
) -> tuple[anndata.AnnData, np.ndarray, list[str]]:
    """Kang's cells, which of them are test cells (bool [n]), and the panel that the others choose, with ``always``."""
    cells = anndata.read_h5ad(path)
    tested = (pd.read_csv(split, index_col=0).iloc[:, 0] == "test").reindex(cells.obs_names).to_numpy()
    return cells, tested, most_varying_genes(cells[~tested], PANEL, always)
