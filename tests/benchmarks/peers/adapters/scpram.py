"""scPRAM: an autoencoder whose counterfactual adds a shift, by attention to pairs that optimal transport matches.

scPRAM 0.0.3 runs on torch 2.13 as it is, but for a package of plots that it imports and a model does without. Its
`predict` takes the cells to move from the training cells of a type: here they are the cells that are asked for.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
from typing import Any

import numpy as np
import torch
from packages import import_package
from rivals_shared import labels_of, log_values, single_concept, stubbed, trained

with stubbed("adjustText", adjust_text=None):
    import_package("scpram")
    _models = import_package("scpram.models")

EPOCHS = 100
ALL = "all"


class _Model(_models.SCPRAM):
    """Take the mean code in place of a draw, where an expectation is asked for."""

    expected = False

    def reparameterize(self, mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return mu if self.expected else super().reparameterize(mu, logvar)


class Adapter:
    """scPRAM, one autoencoder for all conditions, its `predict` for each type of cells that is asked for."""

    name, version, licence = "scPRAM", importlib.metadata.version("scpram"), "MIT"
    lines = 9
    notes = (
        "on log1p of counts per 10,000; a fixed number of epochs (100, its tutorial's): no cells to stop by",
        "reads the source label and the type of each cell at test time, and the training cells again at every call",
        "as shipped, all cells of a type that are asked for together get the shift of the first of them",
        "deterministic decoder: a sample differs by its latent code alone, and has no zeros of its own",
        "one code for everything: its embedding is not meant to be free of any concept",
    )

    def __init__(self, job: Any) -> None:
        self.job = job
        self.model: Any = None

    def fit(self, cells: Any) -> None:
        """Train the autoencoder."""
        from anndata import AnnData

        torch.manual_seed(self.job.seed)
        np.random.seed(self.job.seed)
        cells = trained(cells)
        self.training = AnnData(log_values(cells), obs=labels_of(cells, self.job.concepts))
        self.model = _Model(input_dim=cells.n_vars, device=torch.device(self.job.device)).to(self.job.device)
        self.facts = {"epochs": self.job.epochs or EPOCHS}
        self.model.train_SCPRAM(self.training, epochs=self.facts["epochs"])
        self.model.eval()

    def size_on_disk(self) -> int:
        """Return the bytes of the weights and of the training cells, which `predict` needs."""
        return int(sum(each.numel() * 4 for each in self.model.state_dict().values()) + self.training.X.nbytes)

    def mean(self, cells: Any) -> np.ndarray:
        """Decode the mean code."""
        return self._reconstruct(cells, expected=True)

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Decode codes of the posterior."""
        torch.manual_seed(seed)
        return np.stack([self._reconstruct(cells, expected=False) for _ in range(draws)])

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Move the mean codes."""
        return self._move(cells, do, expected=True)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Move codes of the posterior, as `predict` does."""
        torch.manual_seed(seed)
        return np.stack([self._move(cells, do, expected=False) for _ in range(draws)])

    def embeddings(self, cells: Any) -> dict[str, np.ndarray]:
        """Return the mean code."""
        with torch.no_grad():
            code = self.model.encode(torch.from_numpy(log_values(cells)).to(self.model.device))[1]
        return {"unexplained": code.cpu().numpy()}

    def _reconstruct(self, cells: Any, *, expected: bool) -> np.ndarray:
        self.model.expected = expected
        with torch.no_grad():
            code = self.model.encode(torch.from_numpy(log_values(cells)).to(self.model.device))[0]
            return self.model.decode(code).cpu().numpy()

    def _move(self, cells: Any, do: dict[str, str], *, expected: bool) -> np.ndarray:
        """Group the cells by the label that they have and by type, and predict each group."""
        self.model.expected = expected
        concept, label = single_concept(do, self.name)
        labels = labels_of(cells, self.job.concepts)
        strata = self.job.strata if self.job.strata not in (None, concept) else None
        types = labels[strata] if strata else labels[concept].map(lambda _: ALL)
        moved = self._reconstruct(cells, expected=expected)  # cells that have the label already stay
        for (source, kind), rows in labels.groupby([labels[concept], types]).indices.items():
            if source != label:
                moved[rows] = self._predict(cells[rows], concept, source, label, strata, kind)
        return moved

    def _predict(self, cells: Any, concept: str, source: str, label: str, strata: str | None, kind: str) -> np.ndarray:
        """Call its `predict`: on the training cells, but for those of the type that is asked for, and these cells."""
        import anndata

        training = self.training.copy()
        training.obs["type"] = training.obs[strata] if strata else "other"
        training = training[~((training.obs["type"] == kind) & (training.obs[concept] == source)).to_numpy()]
        asked = anndata.AnnData(log_values(cells), obs=labels_of(cells, self.job.concepts).assign(type=kind))
        keys = {"condition_key": concept, "cell_type_key": "type", "ctrl_key": source, "stim_key": label}
        with contextlib.redirect_stdout(io.StringIO()):
            predicted = self.model.predict(anndata.concat([training, asked]), kind, {**keys, "pred_key": label})
        return np.asarray(predicted.X)
