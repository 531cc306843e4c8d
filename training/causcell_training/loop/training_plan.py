"""The training plan: the model, its objective, and what is measured on held-out cells."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor

from causcell.errors import RunError
from causcell_training.config import TrainConfig
from causcell_training.data.cells import TrainingData
from causcell_training.data.genes import principal_axes
from causcell_training.model import CausCell
from causcell_training.objective import Objective
from causcell_training.run import (
    SPLIT_FILE,
)

MONITOR = "held_out/mse"


class TrainingPlan(lightning.LightningModule):
    """What Lightning runs: the model, its objective, and what is measured on held-out cells."""

    def __init__(self, data: TrainingData, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self._data_digest = data.digest()
        self.model = CausCell(data.schema, data.preprocessing, config.model)
        axes = principal_axes(data, config.model.components, config.seed)
        self.model.encoder.projection.copy_(torch.from_numpy(axes))
        labels = torch.from_numpy(data.labels[data.rows("train")].astype(np.int64))
        self.objective = Objective(data.schema, config.model.embedding, labels, config.objective)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["data_digest"] = self._data_digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["data_digest"] != self._data_digest:
            raise RunError(
                f"the run was begun with other cells, labels or another split (see its {SPLIT_FILE}); resume it with "
                "the same data and --split"
            )

    def on_train_epoch_start(self) -> None:
        """Random numbers of each epoch hang on seed and epoch, so that a resumed run draws those it would have."""
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, self.current_epoch)).generate_state(1)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        terms = self.objective(self.model, *batch)
        sizes = len(batch[0])
        self.log_dict({f"train/{n}": t for n, t in terms.items()}, on_step=False, on_epoch=True, batch_size=sizes)
        return terms["total"]

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        expression, labels = batch
        z = self.model.scm(self.model.encode(expression)[0])
        estimate = self.model.mean_estimate(z)
        metrics = {MONITOR: ((estimate - expression) ** 2).mean()}
        for i, logits in enumerate(self.model.label_logits(z)):
            labelled = labels[:, i] >= 0
            if labelled.any():
                right = (logits.argmax(dim=1) == labels[:, i])[labelled].float().mean()
                metrics[f"held_out/accuracy_{self.model.schema.names[i]}"] = right
        self.log_dict(metrics, batch_size=len(expression))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Matrices of the networks decay; biases, norms, deviations and label tables, which are levels, do not."""
        settings = self.config.optimisation
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        decayed = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in self.parameters() if id(parameter) not in decayed]
        return torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            fused=self.device.type == "cpu",  # a fifth of a step; Lightning can't clip for it under mixed precision
        )
