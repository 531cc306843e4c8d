"""scGen: an autoencoder whose counterfactual adds, in latent space, the difference of two groups' mean codes.

scGen 2.1.0 is mended from outside for scvi-tools 1.4: a module and a class that it imports have gone, and a mixin reads
the posterior under another name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Literal

import numpy as np
import scvi.module.base
import torch
from anndata import AnnData
from packages import import_package
from scvi_shared import accelerator, intervened, prepare, saved_size, split_indices, version, with_log1p
from torch.distributions import Normal


def _import_scgen() -> ModuleType:
    """Import scGen with what it misses of scvi-tools put in place."""
    compatibility = ModuleType("scvi._compat")
    compatibility.Literal = Literal
    sys.modules["scvi._compat"] = compatibility
    scvi.module.base.LossRecorder = scvi.module.base.LossOutput
    return import_package("scgen")


_scgen = _import_scgen()


class _Module(_scgen.SCGENVAE):
    """Name the posterior as scvi-tools 1.4 reads it."""

    def inference(self, x: torch.Tensor) -> dict[str, Any]:
        outputs = super().inference(x)
        return {**outputs, "qz": Normal(outputs["qz_m"], outputs["qz_v"].sqrt())}


class Adapter:
    """scGen; its ``predict`` does every intervention, a concept and a source label at a time."""

    name, version, licence = "scGen", version("scgen"), "MIT"
    lines = 6
    notes = (
        "log1p of counts per 10,000",
        "is told a cell's label at test time, to subtract its group's mean code; not for its reconstruction",
        "deterministic decoder: samples differ by their latent code alone",
        "keeps its training cells: the groups' mean codes are computed at each call, as its predict does",
        "stops by an ELBO in which the KL term, trained with a weight of 5e-5, has its full one, as its tutorial does",
        "no embedding of a concept; its one code is put beside others' unexplained part",
    )

    def __init__(self, job: Any) -> None:
        self.job, self.concepts = job, intervened(job)
        prepare(job)
        _scgen._scgen.SCGENVAE = _Module

    def fit(self, cells: AnnData) -> None:
        """Train as its tutorial on these cells does: 100 epochs, batches of 32, a patience of 25."""
        training, validation = split_indices(cells)
        self.cells = with_log1p(cells, self.concepts)
        self.models = {concept: self._register(concept) for concept in self.concepts}
        self.model = self.models[self.concepts[0]]
        self.model.train(
            max_epochs=self.job.epochs or 100,
            accelerator=accelerator(self.job),
            batch_size=32,
            early_stopping=True,
            early_stopping_patience=25,
            datasplitter_kwargs={"external_indexing": [training, validation, np.array([], dtype=int)]},
            enable_progress_bar=False,
        )
        for model in self.models.values():  # the network knows no labels: one serves every concept
            model.module, model.is_trained_ = self.model.module, True
        self.facts = {"epochs": len(self.model.history["elbo_validation"])}

    def _register(self, concept: str) -> Any:
        """Return a model whose condition is a concept, balanced over the labels of another (cell type, where it is)."""
        others = [name for name in self.concepts if name != concept]
        balanced = "cell_type" if "cell_type" in others else (others or [concept])[0]
        registered = self.cells.copy()
        _scgen.SCGEN.setup_anndata(registered, batch_key=concept, labels_key=balanced)
        return _scgen.SCGEN(registered)

    def mean(self, cells: AnnData) -> np.ndarray:
        return self._decode(torch.as_tensor(self._encode(cells)))

    def sample(self, cells: AnnData, draws: int = 1, seed: int = 0) -> np.ndarray:
        torch.manual_seed(seed)
        sampled = [self._encode(cells, give_mean=False) for _ in range(draws)]
        return np.stack([self._decode(torch.as_tensor(codes)) for codes in sampled])

    def counterfactual_mean(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        if len(do) == 1:  # the call of its documentation
            (concept, label), out = next(iter(do.items())), np.empty(cells.shape, dtype=np.float32)
            given = with_log1p(cells, self.concepts)
            for source in given.obs[concept].unique():
                rows = (given.obs[concept] == source).to_numpy()
                out[rows] = self._predict(concept, source, label, given[rows].copy())[0]
            return out
        return self._decode(torch.as_tensor(self._encode(cells) + self._differences(cells, do)))

    def counterfactual_sample(self, cells: AnnData, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        difference = self._differences(cells, do)
        torch.manual_seed(seed)
        sampled = [self._encode(cells, give_mean=False) + difference for _ in range(draws)]
        return np.stack([self._decode(torch.as_tensor(codes)) for codes in sampled])

    def embeddings(self, cells: AnnData) -> dict[str, np.ndarray]:
        return {"unexplained": self._encode(cells)}

    def size_on_disk(self) -> int:
        return saved_size(self.model)

    def _encode(self, cells: AnnData, give_mean: bool = True) -> np.ndarray:
        return self.model.get_latent_representation(with_log1p(cells, self.concepts), give_mean=give_mean)

    @torch.inference_mode()
    def _decode(self, codes: torch.Tensor) -> np.ndarray:
        return self.model.module.generative(codes)["px"].cpu().numpy()

    def _predict(self, concept: str, source: str, label: str, cells: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return expression [n x G] and the difference of mean codes by scGen's own ``predict``."""
        if source == label:
            return self._decode(torch.as_tensor(self.model.get_latent_representation(cells))), np.zeros(1, np.float32)
        np.random.seed(self.job.seed)  # its predict draws equal numbers of either group by numpy's global stream
        predicted, difference = self.models[concept].predict(source, str(label), adata_to_predict=cells)
        return np.asarray(predicted.X), difference

    def _differences(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        """Return the sum over concepts of differences of mean codes, each cell's own [n x codes]."""
        summed = np.zeros((cells.n_obs, self.model.module.n_latent), dtype=np.float32)
        given = with_log1p(cells, self.concepts)
        for concept, label in do.items():
            for source in given.obs[concept].unique():
                rows = (given.obs[concept] == source).to_numpy()
                summed[rows] += self._predict(concept, source, label, given[rows][:1].copy())[1]
        return summed
