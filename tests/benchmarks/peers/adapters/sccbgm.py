"""scCBGM: an autoencoder with a bottleneck of named concepts beside a code of what no concept says.

No licence: a checkout is measured, and nothing of it is here. Its ``CB_VAE.train_loop`` and ``intervene`` are driven
with the configuration of its Kang benchmark (``fm_config/model/cbm.yaml``: on 128 principal components). Stubbed:
wandb, of which it imports a class that a model does without. Its wrapper's ``reconstruct`` raises (it decodes a
dictionary), and its trainer's ``predict_intervention`` names a GPU: both are done here by the model's own calls.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
from rivals_shared import labels_of, log_values, open_checkout, stubbed, trained

URL = "github.com/almaan/scCBGM"
COMPONENTS, EPOCHS, BATCH = 128, 200, 128
CONFIGURATION = {
    "has_cbm": True,
    "lr": 3e-4,
    "n_layers": 4,
    "hidden_dim": 1024,
    "beta": 1e-5,
    "latent_dim": 128,
    "n_unknown": 128,
    "min_bottleneck_size": 128,
    "concepts_hp": 0.1,
    "orthogonality_hp": 0.5,
    "use_soft_concepts": False,
}


class Concepts:
    """Labels as its binary concepts: one column for two labels, one a label for more."""

    def __init__(self, labels: pd.DataFrame) -> None:
        self.known = {name: sorted(labels[name].unique()) for name in labels}
        self.columns: dict[str, list[int]] = {}
        for name, known in self.known.items():
            start = sum(map(len, self.columns.values()))
            self.columns[name] = list(range(start, start + (1 if len(known) == 2 else len(known))))

    @property
    def size(self) -> int:
        """Number of columns."""
        return sum(map(len, self.columns.values()))

    def encode(self, labels: pd.DataFrame) -> np.ndarray:
        """Return float32 [n x columns]."""
        return np.concatenate([self._encode(name, labels[name].to_numpy()) for name in self.known], axis=1)

    def intervene(self, n: int, do: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the values that are set, and 1 where one is, both [n x columns]."""
        values, mask = np.zeros((2, n, self.size), dtype=np.float32)
        for name, label in do.items():
            values[:, self.columns[name]] = self._encode(name, np.full(n, label))
            mask[:, self.columns[name]] = 1
        return values, mask

    def _encode(self, name: str, found: np.ndarray) -> np.ndarray:
        known = self.known[name][1:] if len(self.known[name]) == 2 else self.known[name]
        return (found[:, None] == np.array(known)[None]).astype(np.float32)


class Adapter:
    """scCBGM's autoencoder, as its Kang benchmark trains it."""

    name, version, licence = "scCBGM", "06ac700", "none"
    lines = 14
    notes = (
        "trained on 128 principal components of log1p of counts per 10,000 (its authors': per the median total), for a"
        " fixed number of epochs: no cells to stop by",
        "reads no label and no library size at test time: all concepts but the one that is set are predicted",
        "deterministic decoder: a sample differs by its latent code alone, and has no zeros of its own",
        "no licence; its wrapper's `load`, `reconstruct` and `curate_concepts` raise",
    )

    def __init__(self, job: Any) -> None:
        self.job = job
        open_checkout(job, self.name, ("conceptlab", "conceptlab.models"), URL)
        importlib.import_module("pytorch_lightning")  # before the stub: it asks for wandb itself
        self.module = self.import_module("conceptlab.models.cb_vae")

    def import_module(self, name: str) -> Any:
        """Import one of its modules, with a stub for wandb."""
        with stubbed("wandb", Histogram=object):
            return importlib.import_module(name)

    def fit(self, cells: Any) -> None:
        """Take the components, and train the autoencoder on them."""
        import torch
        from omegaconf import OmegaConf
        from sklearn.decomposition import PCA

        torch.manual_seed(self.job.seed)
        np.random.seed(self.job.seed)
        cells = trained(cells)
        labels = labels_of(cells, self.job.concepts)
        self.concepts = Concepts(labels)
        expression = log_values(cells)
        self.components = PCA(n_components=min(COMPONENTS, *expression.shape), random_state=self.job.seed)
        data = torch.from_numpy(self.components.fit_transform(expression).astype(np.float32))
        sizes = {"input_dim": data.shape[1], "n_concepts": self.concepts.size}
        self.model = self.module.scCBGM(OmegaConf.create({**sizes, **CONFIGURATION}))
        epochs = self.job.epochs or EPOCHS
        self.model.train_loop(data, torch.from_numpy(self.concepts.encode(labels)), epochs, BATCH)
        self.model.eval()
        self.device = next(self.model.parameters()).device
        self.facts = {"epochs": epochs}

    def size_on_disk(self) -> int:
        """Return the bytes of the weights and of the components."""
        weights = sum(each.numel() * 4 for each in self.model.state_dict().values())
        return int(weights + 4 * (self.components.components_.size + self.components.mean_.size))

    def mean(self, cells: Any) -> np.ndarray:
        """Decode the mean code under the concepts that are predicted from it."""
        return self._decode(cells, {}, None)

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Decode codes of the posterior."""
        return np.stack([self._decode(cells, {}, (seed, draw)) for draw in range(draws)])

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Decode the mean code with a concept set."""
        return self._decode(cells, do, None)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Decode codes of the posterior with a concept set: its own `intervene`."""
        return np.stack([self._decode(cells, do, (seed, draw)) for draw in range(draws)])

    def embeddings(self, cells: Any) -> dict[str, np.ndarray]:
        """Return the code of what no concept says, and the predicted concepts."""
        known, unknown = (each.cpu().numpy() for each in self.bottleneck(self.projected(cells)))
        return {"unexplained": unknown} | {name: known[:, where] for name, where in self.concepts.columns.items()}

    def projected(self, cells: Any) -> Any:
        """Return the cells' components, a tensor on the model's device [n x 128]."""
        import torch

        return torch.from_numpy(self.components.transform(log_values(cells)).astype(np.float32)).to(self.device)

    def bottleneck(self, data: Any) -> tuple[Any, Any]:
        """Return concepts and the rest as they are predicted from the mean code."""
        import torch

        with torch.no_grad():
            code = self.model.encode(data)["mu"]
            return self.model.cb_concepts_layers(code), self.model.cb_unk_layers(code)

    def expression(self, components: Any) -> np.ndarray:
        """Return log values of components, clipped at zero, float32 [n x G]."""
        return np.maximum(self.components.inverse_transform(components.cpu().numpy()), 0).astype(np.float32)

    def _decode(self, cells: Any, do: dict[str, str], seed: tuple[int, int] | None) -> np.ndarray:
        import torch

        data = self.projected(cells)
        values, mask = (torch.from_numpy(each).to(self.device) for each in self.concepts.intervene(cells.n_obs, do))
        with torch.no_grad():
            if seed is not None:
                torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
                return self.expression(self.model.intervene(data, values, mask)["x_pred"])
            known, unknown = self.bottleneck(data)
            decoded = self.model.decode(input_concept=known * (1 - mask) + values * mask, unknown=unknown)
        return self.expression(decoded["x_pred"])
