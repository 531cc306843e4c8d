"""scVI: a variational autoencoder of counts; counterfactuals decode a cell's latent code with another label.

Concepts are labels that the decoder is given (the first one intervened on as the batch, the others as categorical
covariates). The one within whose labels effects are judged (cell type, line) is not, unless it is intervened on: users
of scVI leave it to the latent code, and so it did better on Kang's cells. The encoder is given no label
(``encode_covariates=False``, scvi-tools' default), so that to change a cell's label is to ``transform_batch``, for
covariates as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anndata import AnnData
from scvi.model import SCVI
from scvi_shared import (
    BATCH,
    PREDICTIVE_SAMPLES,
    CountModel,
    accelerator,
    expect_log1p,
    intervened,
    log1p_of_counts,
    prepare,
    relabelled,
    saved_size,
    split_indices,
    totals,
    version,
    with_counts,
)


class Adapter(CountModel):
    """scVI with concepts as labels of its decoder."""

    name, version, licence = "scVI", version("scvi-tools"), "BSD-3-Clause"
    lines = 7
    notes = (
        "counts",
        "is told a cell's labels, and the target's, at test time, but not its cell type (nor its line, or patient)",
        "is told a cell's total of counts at test time (its own over the panel)",
        f"means of log1p over {PREDICTIVE_SAMPLES} posterior predictive samples",
        "no embedding of a concept",
    )

    def __init__(self, job: Any) -> None:
        asked = {concept for each in job.interventions for concept in each["do"]}
        self.job = job
        self.concepts = [name for name in intervened(job) if name in asked or name != job.strata]
        prepare(job)

    def fit(self, cells: AnnData) -> None:
        """Train with two layers, 30 latent numbers and a negative binomial, as scvi-tools' tutorials recommend."""
        training, validation = split_indices(cells)
        registered = with_counts(cells, self.concepts)
        batch, *others = self.concepts
        SCVI.setup_anndata(registered, batch_key=batch, categorical_covariate_keys=others or None)
        self.model = SCVI(registered, n_layers=2, n_latent=30, gene_likelihood="nb")
        self.model.train(
            max_epochs=self.job.epochs,
            accelerator=accelerator(self.job),
            early_stopping=True,
            datasplitter_kwargs={"external_indexing": [training, validation, np.array([], dtype=int)]},
            enable_progress_bar=False,
        )
        self.facts = {"epochs": len(self.model.history["elbo_validation"])}

    def embeddings(self, cells: AnnData) -> dict[str, np.ndarray]:
        return {"unexplained": self.model.get_latent_representation(with_counts(cells, self.concepts))}

    def size_on_disk(self) -> int:
        return saved_size(self.model)

    @torch.inference_mode()
    def expect(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        """Average log1p of posterior predictive samples [n x G]."""
        means = []
        for tensors, total in self._tensors(cells, do):
            _, generated = self.model.module.forward(
                tensors, inference_kwargs={"n_samples": PREDICTIVE_SAMPLES}, compute_loss=False
            )
            means.append(expect_log1p(generated["px"], total.to(self.model.device)).cpu())
        return torch.cat(means).numpy()

    def draw(self, cells: AnnData, do: dict[str, str], draws: int, seed: int) -> np.ndarray:
        """Draw predictive samples [draws x n x G]."""
        torch.manual_seed(seed)
        return np.stack(
            [
                torch.cat(
                    [
                        log1p_of_counts(self.model.module.sample(tensors, n_samples=1), total)
                        for tensors, total in self._tensors(cells, do)
                    ]
                ).numpy()
                for _ in range(draws)
            ]
        )

    def _tensors(self, cells: AnnData, do: dict[str, str]) -> list[Any]:
        """Return batches of the model's tensors, with each batch's totals [n x 1]."""
        registered = self.model._validate_anndata(relabelled(with_counts(cells, self.concepts), do))
        loader = self.model._make_data_loader(adata=registered, batch_size=BATCH, shuffle=False)
        return list(zip(loader, totals(cells).split(BATCH), strict=True))
