"""Biolord: a decoder of a code that is learnt for each cell, beside an embedding of each label; it has no encoder.

Codes of new cells are learnt as those of training cells are, by its own loss, with the decoder and the embeddings as
they were trained. They are kept: a cell that was asked for once costs a look-up.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from packages import import_package
from scvi_shared import (
    accelerator,
    intervened,
    prepare,
    relabelled,
    saved_size,
    split_indices,
    version,
    with_log1p,
)

_biolord = import_package("biolord")

SPLIT = "biolord_split"
MODULE = {
    "decoder_width": 1024,
    "decoder_depth": 4,
    "attribute_nn_width": 512,
    "attribute_nn_depth": 2,
    "n_latent_attribute_categorical": 4,
    "gene_likelihood": "normal",
    "reconstruction_penalty": 1e2,
    "unknown_attribute_penalty": 1e1,
    "unknown_attribute_noise_param": 1e-1,
    "attribute_dropout_rate": 0.1,
    "use_batch_norm": False,
    "use_layer_norm": False,
}
PLAN = {
    "n_epochs_warmup": 0,
    "latent_lr": 1e-4,
    "latent_wd": 1e-4,
    "decoder_lr": 1e-4,
    "decoder_wd": 1e-4,
    "attribute_nn_lr": 1e-2,
    "attribute_nn_wd": 4e-8,
    "step_size_lr": 45,
    "cosine_scheduler": True,
    "scheduler_final_lr": 1e-5,
}
"""Settings of its tutorials (nitzanlab/biolord, docs/tutorials/biolord_pipeline.ipynb)."""

STEPS, RATE = 100, 0.05
"""Steps of Adam, and their size, that learn the code of a new cell."""


class Adapter:
    """Biolord with every concept as a known categorical attribute."""

    name, version, licence = "Biolord", version("biolord"), "BSD-3-Clause"
    lines = 9
    notes = (
        "log1p of counts per 10,000",
        "is told a cell's labels, and the target's, at test time",
        f"no encoder: the code of a new cell is learnt by {STEPS} steps at its first call, which rates don't count",
        "samples from its normal distribution",
        "its embedding of a concept is looked up by the label, so that nothing is read from the cell: not scored",
    )

    def __init__(self, job: Any) -> None:
        self.job, self.concepts = job, intervened(job)
        self.facts: dict[str, Any] = {"cells whose code was learnt at a call": 0, "CPU seconds of that": 0.0}
        prepare(job)

    def fit(self, cells: AnnData) -> None:
        """Train with the settings of its tutorials: at most 500 epochs, validated every tenth."""
        training, validation = split_indices(cells)
        registered = with_log1p(cells, self.concepts)
        registered.obs[SPLIT] = "train"
        registered.obs.iloc[validation, registered.obs.columns.get_loc(SPLIT)] = "test"
        _biolord.Biolord.setup_anndata(registered, categorical_attributes_keys=self.concepts)
        self.model = _biolord.Biolord(
            registered, n_latent=32, split_key=SPLIT, module_params={**MODULE, "seed": self.job.seed}
        )
        self.model.train(
            max_epochs=self.job.epochs or 500,
            accelerator=accelerator(self.job),
            batch_size=512,
            plan_kwargs=dict(PLAN),
            early_stopping=True,
            early_stopping_patience=20,
            check_val_every_n_epoch=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        self.facts["epochs"] = int(max(self.model.training_plan.epoch_history["epoch"])) + 1
        for parameter in self.model.module.parameters():
            parameter.requires_grad_(False)
        codes = self.model.module.latent_codes.embedding.weight
        keys = _keys(registered, self.concepts)
        self.codes = {keys[row]: codes[row].cpu().clone() for row in training}

    def mean(self, cells: AnnData) -> np.ndarray:
        return self._predict(cells, {})[0].numpy()

    def sample(self, cells: AnnData, draws: int = 1, seed: int = 0) -> np.ndarray:
        return self._draw(cells, {}, draws, seed)

    def counterfactual_mean(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        return self._predict(cells, do)[0].numpy()

    def counterfactual_sample(self, cells: AnnData, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        return self._draw(cells, do, draws, seed)

    def embeddings(self, cells: AnnData) -> dict[str, np.ndarray]:
        return {"unexplained": self._encode(self._register(cells)).numpy()}

    def size_on_disk(self) -> int:
        return saved_size(self.model)

    def _register(self, cells: AnnData) -> AnnData:
        """Copy cells with the column that its loader asks for: rows of its own codes, which aren't read here."""
        given = with_log1p(cells, self.concepts)
        given.obs["_indices"] = np.arange(given.n_obs)
        return given

    def _draw(self, cells: AnnData, do: dict[str, str], draws: int, seed: int) -> np.ndarray:
        """Draw from each value's normal distribution [draws x n x G]."""
        means, variances = self._predict(cells, do)
        torch.manual_seed(seed)
        return np.stack([torch.normal(means, variances.sqrt()).numpy() for _ in range(draws)])

    @torch.inference_mode()
    def _predict(self, cells: AnnData, do: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode cells' codes with labels set: means and variances [n x G]."""
        given = self._register(cells)
        codes = self._encode(given)
        tensors = self.model.get_dataset(relabelled(given, do))
        decoded = self._decode(codes.to(self.model.device), tensors)
        return decoded["means"].cpu(), decoded["variances"].cpu()

    def _decode(self, codes: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Decode codes [n x 32] beside the embeddings of the cells' labels."""
        module = self.model.module
        labels = {name: tensors[name].to(codes.device).long().ravel() for name in self.concepts}
        embedded = [embedding(labels[name]) for name, embedding in module.categorical_embeddings.items()]
        return module.generative(torch.cat([codes, *embedded], dim=-1))

    def _encode(self, cells: AnnData) -> torch.Tensor:
        """Return the codes of cells [n x 32], learning those that there are none of yet."""
        keys = _keys(cells, self.concepts)
        new = list({key: row for row, key in enumerate(keys) if key not in self.codes}.values())
        if new:
            started = time.process_time()
            for key, code in zip([keys[row] for row in new], self._learn(cells[new].copy()), strict=True):
                self.codes[key] = code
            self.facts["cells whose code was learnt at a call"] += len(new)
            self.facts["CPU seconds of that"] += round(time.process_time() - started, 3)
        return torch.stack([self.codes[key] for key in keys])

    def _learn(self, cells: AnnData) -> torch.Tensor:
        """Learn codes by Biolord's loss with everything else as it was trained."""
        module, tensors = self.model.module, self.model.get_dataset(cells)
        tensors = {name: values.to(self.model.device) for name, values in tensors.items()}
        with torch.inference_mode(False), torch.enable_grad():
            tensors = {name: values.clone() for name, values in tensors.items()}
            codes = torch.zeros(cells.n_obs, module.n_latent, device=self.model.device, requires_grad=True)
            optimizer = torch.optim.Adam([codes], lr=RATE)
            for _ in range(STEPS):
                optimizer.zero_grad()
                losses = module.loss(tensors, {"latent_unknown_attributes": codes}, self._decode(codes, tensors))
                names = _biolord._constants.LOSS_KEYS
                penalty = module.unknown_attribute_penalty * losses[names.UNKNOWN_ATTRIBUTE_PENALTY]
                (losses[names.RECONSTRUCTION] + penalty).backward()
                optimizer.step()
        return codes.detach().cpu()


def _keys(cells: AnnData, concepts: list[str]) -> list[bytes]:
    """Return a digest of each cell's expression and labels."""
    labels = cells.obs[concepts].astype(str).agg("\x1f".join, axis=1)
    values = np.ascontiguousarray(cells.X)
    return [
        hashlib.blake2b(row.tobytes() + text.encode(), digest_size=16).digest()
        for row, text in zip(values, labels, strict=True)
    ]
