"""scDisInFact: an autoencoder of counts with a shared code and one code a condition type.

GPL, and on no index: a checkout is measured, and nothing of it is here. Mended from outside: it asks a GPU for its
memory at every tenth epoch, and its `predict_counts` returns rates alone, where E[log1p] needs the dispersions: its
steps are done here by its own `inference` and `generative`, with the centroids of the training codes kept.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from typing import Any

import numpy as np
import pandas as pd
from rivals_shared import counts, labels_of, open_checkout, trained

URL = "github.com/ZhangLabGT/scDisInFact"
BATCH_NAMES = ("donor", "patient", "line", "batch")
ONE_BATCH = "batch_key"
SHARED, OWN = 8, 4
EPOCHS, CHUNK, PATIENCE, LONGEST = 100, 10, 5, 500
"""Its documented number of epochs, and how long it goes on while the loss of the validation cells falls."""
LAST_COUNT = 64
"""Counts up to which expectations are summed; what lies above is put at its mean."""


class Adapter:
    """scDisInFact with the concepts that are intervened on as condition types; donors, patients or lines are batches.

    Types of cells are what its shared code is for.
    """

    name, version, licence = "scDisInFact", "0.1.0", "GPL-3.0"
    lines = 15
    notes = (
        "of counts, by the panel's total of each cell, which is read at test time; rates are rescaled by all genes'",
        "reads the source label and the batch (donor, patient or line) of each cell at test time",
        f"trained on beyond its documented {EPOCHS} epochs while the loss of the validation cells falls",
        "an epoch ends with the smallest group of batch and condition, as shipped",
    )

    def __init__(self, job: Any) -> None:
        self.job = job
        open_checkout(job, self.name, ("scDisInFact",), URL)
        self.module = importlib.import_module("scDisInFact.model")
        acted = {concept for each in job.interventions for concept in each["do"]}
        self.conditions = [concept for concept in job.concepts if concept in acted]
        self.batch = next((each for each in BATCH_NAMES if each in job.concepts and each not in acted), None)

    def fit(self, cells: Any) -> None:
        """Train until the loss of the validation cells has not fallen for fifty epochs."""
        import torch

        torch.cuda.memory_allocated = lambda *_: 0  # asked for without a GPU too
        kept = cells[cells.obs["validation"].to_numpy(dtype=bool)].copy()
        cells = trained(cells)
        with contextlib.redirect_stdout(io.StringIO()):
            data = self.module.create_scdisinfact_dataset(
                counts(cells), self._labels(cells), condition_key=list(self.conditions), batch_key=ONE_BATCH
            )
        self.names = data["matching_dict"]
        device = torch.device(self.job.device)
        widths = [SHARED, *([OWN] * len(self.conditions))]
        self.model = self.module.scdisinfact(data_dict=data, Ks=widths, seed=self.job.seed, device=device)
        self._train(kept)
        self.model.eval()
        self.scaler = data["scaler"]
        self._keep_centroids(data)

    def _train(self, kept: Any) -> None:
        """Train in tens of epochs, and keep the state in which the validation cells are reconstructed best."""
        least, since, epochs, best = np.inf, 0, 0, None
        self.scaler = self.model.data_dict["scaler"]
        longest = self.job.epochs or LONGEST
        while epochs < longest and (epochs < EPOCHS or since < PATIENCE):
            chunk = min(CHUNK, longest - epochs)
            with contextlib.redirect_stdout(io.StringIO()):
                self.model.train_model(nepochs=chunk - 1)
            epochs += chunk
            loss = self._loss(kept)
            since += 1
            if loss < least:
                least, since, best = loss, 0, copy.deepcopy(self.model.state_dict())
                self.facts = {"epochs": epochs}
        self.model.load_state_dict(best)
        self.facts["epochs run"] = epochs

    def _loss(self, cells: Any) -> float:
        """Return the negative log-likelihood of cells a count, by its own loss."""
        import torch

        losses = importlib.import_module("scDisInFact.loss_function")
        decoded, found, device = self._decode(cells, {}), counts(cells), self.model.device
        factor = torch.as_tensor(self._factor(found), device=device)
        law = losses.NB(theta=decoded["theta"], scale_factor=factor, device=device)
        return float(law.loss(y_true=torch.as_tensor(found, device=device), y_pred=decoded["mu"]))

    def size_on_disk(self) -> int:
        """Return the bytes of the weights."""
        return int(sum(each.numel() * 4 for each in self.model.state_dict().values()))

    def mean(self, cells: Any) -> np.ndarray:
        """Return E[log1p] of the law of the mean codes."""
        return self._expect(cells, {})

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw counts from the law of the mean codes (in evaluation it draws no codes)."""
        return self._draw(cells, {}, draws, seed)

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Return E[log1p] after codes were moved between the centroids of conditions."""
        return self._expect(cells, do)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Draw counts after codes were moved between the centroids of conditions."""
        return self._draw(cells, do, draws, seed)

    def embeddings(self, cells: Any) -> dict[str, np.ndarray]:
        """Return the shared code, and the code of each condition type."""
        codes = self._encode(cells)
        own = {name: code.cpu().numpy() for name, code in zip(self.conditions, codes["mu_d"], strict=True)}
        return {"unexplained": codes["mu_c"].cpu().numpy(), **own}

    def _labels(self, cells: Any) -> pd.DataFrame:
        labels = labels_of(cells, self.job.concepts)
        labels[ONE_BATCH] = labels[self.batch] if self.batch else "all"
        return labels[[*self.conditions, ONE_BATCH]]

    def _factor(self, found: np.ndarray) -> np.ndarray:
        """Return its size factors: a hundredth of the panel's total, float32 [n x 1]."""
        return np.maximum(found.sum(axis=1, keepdims=True), 1) / np.float32(100)

    def _encode(self, cells: Any) -> dict[str, Any]:
        import torch

        found = counts(cells)
        data = torch.FloatTensor(self.scaler.transform(np.log1p(found / self._factor(found))))
        places = pd.Index(self.names["batch_name"]).get_indexer(self._labels(cells)[ONE_BATCH])
        with torch.no_grad():
            return self.model.inference(counts=data, batch_ids=torch.FloatTensor(places)[:, None])

    def _decode(self, cells: Any, do: dict[str, str]) -> dict[str, Any]:
        """Decode mean codes, those of the conditions that are set moved as `predict_counts` moves them."""
        import torch

        codes, labels = self._encode(cells), self._labels(cells)
        own = list(codes["mu_d"])
        for concept, label in do.items():
            at = self.conditions.index(concept)
            known = pd.Index(self.names["cond_names"][at])
            now, then = known.get_indexer(labels[concept]), known.get_loc(label)
            own[at] = own[at] + self.centroids[at][then] - self.centroids[at][now]
        places = pd.Index(self.names["batch_name"]).get_indexer(labels[ONE_BATCH])
        with torch.no_grad():
            return self.model.generative(codes["mu_c"], own, torch.FloatTensor(places)[:, None])

    def _keep_centroids(self, data: dict[str, Any]) -> None:
        """Average the training cells' codes of each condition."""
        import torch

        codes: list[list[Any]] = [[] for _ in self.conditions]
        with torch.no_grad():
            for each in data["datasets"]:
                found = self.model.inference(counts=each.counts_norm, batch_ids=each.batch_id[:, None])["mu_d"]
                for at, code in enumerate(found):
                    codes[at].append(code)
        self.centroids = []
        for at, of_condition in enumerate(codes):
            where = torch.cat([each.diff_labels[at] for each in data["datasets"]]).to(of_condition[0].device)
            code = torch.cat(of_condition)
            self.centroids.append(torch.stack([code[where == each].mean(dim=0) for each in torch.unique(where)]))

    def _law(self, cells: Any, do: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return means and dispersions of counts [n x G], and log1p's scale [n x 1]."""
        decoded = self._decode(cells, do)
        means = decoded["mu"].cpu().numpy() * self._factor(counts(cells))
        scale = 10_000 / cells.obs["total"].to_numpy(dtype=np.float64)[:, None]
        return means.astype(np.float64), decoded["theta"].cpu().numpy().clip(1e-6, 1e6).astype(np.float64), scale

    def _expect(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        return expected_log1p(*self._law(cells, do))

    def _draw(self, cells: Any, do: dict[str, str], draws: int, seed: int) -> np.ndarray:
        means, dispersions, scale = self._law(cells, do)
        rng = np.random.default_rng(seed)
        drawn = [rng.poisson(rng.gamma(dispersions, means / dispersions)) for _ in range(draws)]
        return np.log1p(np.stack(drawn) * scale).astype(np.float32)


def expected_log1p(means: np.ndarray, dispersions: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return E[log1p(scale * count)] of negative binomial counts, float32 [n x G], by summing over counts."""
    chance = (dispersions / (dispersions + means)) ** dispersions
    left, left_mean, expected = 1 - chance, means.copy(), np.zeros_like(means)
    for count in range(1, LAST_COUNT + 1):
        chance = chance * (count - 1 + dispersions) / count * (means / (means + dispersions))
        expected += chance * np.log1p(scale * count)
        left -= chance
        left_mean -= count * chance
        if left.max() < 1e-7:
            break
    tail = np.maximum(left, 0)
    above = np.divide(left_mean, tail, out=np.zeros_like(tail), where=tail > 1e-9)
    return (expected + tail * np.log1p(scale * np.maximum(above, 0))).astype(np.float32)
