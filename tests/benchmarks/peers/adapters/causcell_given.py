"""CausCell itself: trained, exported, opened by ONNX Runtime; a row a preset, and one of the cells' own embeddings."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import causcell
from causcell import Generator
from causcell.errors import CausCellWarning
from causcell_export import export
from causcell_training import fit
from causcell_training.config import load_config

_SMALL = {
    "model.embedding": 8,
    "model.encoder_width": 64,
    "model.width": 64,
    "model.blocks": 1,
    "optimisation.learning_rate": 3e-3,
    "optimisation.epochs": 60,
}
"""Settings for the simulator's 80 genes."""


class Preset:
    """What one preset of an open model predicts; the mean estimate is that of the preset ``mean`` in all of them.

    Parameters
    ----------
    generator
        The open model.
    preset
        Name of a preset that samples.
    target
        Where embeddings under an intervention come from.
    """

    def __init__(self, generator: Generator, preset: str, target: str = "reference") -> None:
        self.generator, self.preset, self.target = generator, preset, target
        self.name = f"CausCell, preset {preset}" if target == "reference" else f"CausCell, target {target}"

    def _predict(self, cells: Any, do: dict[str, str] | None, **options: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
            found = self.generator.counterfactual(cells, do, totals="total", target=self.target, **options)
        draws = options.get("draws", 1)
        return np.asarray(found.X, dtype=np.float32).reshape(cells.n_obs, draws, -1).transpose(1, 0, 2)

    def mean(self, cells: Any) -> np.ndarray:
        """Estimate the cells from their embeddings."""
        return self._predict(cells, None, preset="mean")[0]

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Estimate the cells under an intervention."""
        return self._predict(cells, do, preset="mean")[0]

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw the cells anew."""
        return self._predict(cells, None, preset=self.preset, draws=draws, seed=seed)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw the cells under an intervention."""
        return self._predict(cells, do, preset=self.preset, draws=draws, seed=seed)

    def embeddings(self, cells: Any) -> dict[str, np.ndarray]:
        """Read each concept's embedding, and the unexplained rest's."""
        found = self.generator.embed(cells, totals="total")
        names = [*self.generator.schema.names, "unexplained"]
        return {name: np.asarray(found.obsm[f"X_causcell_{name}"]) for name in names}


class Adapter(Preset):
    """CausCell with the graph of the job.

    Parameters
    ----------
    job
        See ``adapter.Job``.
    """

    version = causcell.__version__
    licence = "BSD-3-Clause"
    notes = ("labels beside expression tell the embeddings at test time, where they are known", "counts")
    lines = 4
    graph = "given"

    def __init__(self, job: Any) -> None:
        self.job = job
        self.facts: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="causcell-peer-"))
        self.preset, self.target = "draw", "reference"
        self.name = "CausCell" if self.graph == "given" else "CausCell_IND"

    def fit(self, cells: Any) -> None:
        """Train, export, open."""
        settings: dict[str, Any] = {
            "concept": self.job.concepts,
            "edge": self.job.edges,
            "genes": "all",
            "totals": "total",
            "seed": self.job.seed,
            "model.graph": self.graph,
            "optimisation.accelerator": "gpu" if self.job.device == "cuda" else "cpu",
            **(_SMALL if self.job.data_kind == "simulator" else {}),
            **({"optimisation.epochs": self.job.epochs} if self.job.epochs else {}),
        }
        part = np.where(cells.obs["validation"], "validation", "train")
        started = time.process_time()
        run = fit(
            cells,
            self.folder / "run",
            config=load_config(overrides=settings),
            split=dict(zip(cells.obs_names, part, strict=True)),
        )
        trained = time.process_time()
        models = export(run, self.folder / "models")
        self.facts["train, CPU seconds"] = round(trained - started, 1)
        self.facts["export, CPU seconds"] = round(time.process_time() - trained, 1)
        self.generator = Generator.open(models, threads=self.job.threads)
        self.preset = self.generator.manifest.default_preset
        self.facts["default preset"] = self.preset
        self.facts["epochs"] = self.generator.manifest.provenance["epochs"]

    def variants(self) -> dict[str, Preset]:
        """Give the presets but the default one, and the default one by the cells' own embeddings, by name."""
        others = [name for name in self.generator.manifest.presets if name not in ("mean", self.preset)]
        presets = {name: Preset(self.generator, name) for name in others}
        return presets | {"own": Preset(self.generator, self.preset, "own")}

    def size_on_disk(self) -> int:
        """Return the bytes of what is deployed."""
        return sum(path.stat().st_size for path in (self.folder / "models").rglob("*") if path.is_file())

    def close(self) -> None:
        """Close the model and remove it."""
        self.generator.close()
        shutil.rmtree(self.folder)
