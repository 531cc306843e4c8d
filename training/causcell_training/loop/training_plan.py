"""The training plan: the model, its objective, its optimiser, and what is measured on validation rows."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from causcell.concepts import UNLABELLED
from causcell.errors import RunError
from causcell_training.config import DescentConfig, TrainConfig
from causcell_training.data.cells import Batch, TrainingData
from causcell_training.data.components import principal_axes
from causcell_training.descended_weights import take_over
from causcell_training.kinds.priors import LabelPrior
from causcell_training.model import CausCell
from causcell_training.objective import Objective
from causcell_training.run_folder import SPLIT_FILE
from causcell_training.value_measures import number_errors

MONITOR = "held_out/mse"
"""Measure of the validation rows that stops training and chooses the weights; less is better."""

_GROUPS = 3
"""Groups of weights: matrices, those of the head, all others."""


class TrainingPlan(lightning.LightningModule):
    """Plan of a training: the Lightning module that `causcell_training.fit` runs.

    A subclass given as ``fit(..., plan=...)`` may override

    - ``__init__(data, config)``, to set another ``self.objective``, a module that is called as `Objective` is, or to
      change ``self.model``, which stays a `CausCell`, after ``super().__init__(data, config)``;
    - ``training_step(batch)``, which returns the loss of a batch and logs what ``metrics.csv`` shall hold under names
      that begin with ``train/``;
    - ``validation_step(batch)``, which logs at least `MONITOR`, ``held_out/mse``;
    - ``configure_optimizers()``, and any other hook of Lightning's. Random numbers are seeded in
      ``on_train_epoch_start``, terms of the loss are logged in ``on_train_batch_end``, and the digest of the data is
      kept in checkpoints by ``on_save_checkpoint`` and compared by ``on_load_checkpoint``: an override calls
      ``super()``'s, else a resumed run is another one, or metrics are missing.

    The trained ``self.model`` is what the run keeps; it is exported and served as any other.

    Parameters
    ----------
    data
        Cells to train on.
    config
        Settings.

    Attributes
    ----------
    config
        Settings.
    model
        The model in training; its encoder already projects to the principal components of the training rows, or it
        has the weights of the run that training starts from.
    objective
        The objective, with the parameters that only training needs.

    Examples
    --------
    A plan whose learning rate falls along a cosine:

    >>> import torch
    >>> class CosinePlan(TrainingPlan):
    ...     def configure_optimizers(self):
    ...         optimizer = super().configure_optimizers()
    ...         schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.optimisation.epochs)
    ...         return {"optimizer": optimizer, "lr_scheduler": schedule}
    """

    def __init__(self, data: TrainingData, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self._data_digest = data.digest()
        self._sums: dict[str, Tensor] = {}
        self._cells = 0
        self.model = CausCell(data.schema, data.preprocessing, config.model)
        if data.heritage is None:
            if config.model.graph == "learned":
                self.model.scm.learn_edges()
            axes = principal_axes(data, config.model.components, config.seed)
            self.model.encoder.projection.copy_(torch.from_numpy(axes))
        labels = torch.from_numpy(data.trained_labels.astype(np.int64))
        self.objective = Objective(data.schema, config.model.embedding, labels, config.objective)
        if data.heritage is not None:
            take_over(self.model, self.objective, data, config.descent or DescentConfig())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the digest of the data and the name of the plan in a checkpoint."""
        checkpoint["data_digest"] = self._data_digest
        checkpoint["plan"] = plan_name(type(self))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with other data or another plan; raises `RunError`."""
        if checkpoint["data_digest"] != self._data_digest:
            raise RunError(
                f"the run was begun with other cells, labels or another split (see its {SPLIT_FILE}); resume it with "
                "the same data and split="
            )
        own, begun = plan_name(type(self)), checkpoint.get("plan", plan_name(TrainingPlan))
        if begun != own:
            raise RunError(f"the run was begun with plan={begun}, not {own}; resume it with the same")
        groups = len(checkpoint["optimizer_states"][0]["param_groups"])
        if type(self) is TrainingPlan and groups != _GROUPS:
            raise RunError(
                f"the run was begun by an earlier version, which trained {groups} groups of weights where this one has "
                f"{_GROUPS} (the head has a decay of its own); resume it with that version, or begin again with "
                "overwrite=True"
            )

    def on_train_epoch_start(self) -> None:
        """Seed torch by seed and epoch, so that a resumed run draws the random numbers that it would have drawn."""
        process = (self.global_rank,) if self.global_rank else ()  # one that is alone has what it always had
        seed = np.random.SeedSequence((self.config.seed, self.current_epoch, *process))
        torch.manual_seed(int(seed.generate_state(1)[0]))
        self._sums, self._cells = {}, 0

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the loss of a batch, and add its terms to those that `on_train_batch_end` logs.

        Parameters
        ----------
        batch
            Log-scale expression, float32 [B x G], label codes, int64 [B x m], and where concepts have values these,
            float32 [B x V].

        Returns
        -------
        Tensor
            The loss, a scalar.
        """
        terms: dict[str, Tensor] = self.objective(self.model, *batch)
        cells = len(batch[0])
        self._cells += cells
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0) + cells * term.detach()
        return terms["total"]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log every term of the loss as ``train/<term>``, its mean over an epoch's cells, after the epoch's last batch.

        Logging each term of each batch took a tenth of a step. A callback may have ended the epoch with this batch.
        """
        if self.trainer.is_last_batch or self.trainer.should_stop:
            means = {f"train/{name}": total / self._cells for name, total in self._sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: Batch) -> None:
        """Measure a batch of validation rows: `MONITOR`, and the accuracy of each concept's labels.

        `MONITOR` is the mean squared error of the mean estimate over cells and genes, on the log scale;
        ``held_out/accuracy_<concept>`` is the share of labelled cells whose most likely label is their own;
        ``held_out/mae_<concept>`` the mean absolute error of an ordinal or continuous concept's number, in its units.

        Parameters
        ----------
        batch
            As for `training_step`.
        """
        expression, labels, *values = batch
        exogenous = self.model.encode(expression)[0]
        z = self.model.scm(exogenous)
        estimate = self.model.mean_estimate(self.model.scm(self.model.inform(exogenous, labels, *values)))
        metrics = {MONITOR: ((estimate - expression) ** 2).mean()}
        for name, error in number_errors(self.model, z, *values).items():
            metrics[f"held_out/mae_{name}"] = error
        for i, logits in enumerate(self.model.label_logits(z)):
            labelled = labels[:, i] != UNLABELLED
            if labelled.any():
                right = (logits.argmax(dim=1) == labels[:, i])[labelled].float().mean()
                metrics[f"held_out/accuracy_{self.model.schema.names[i]}"] = right
        self.log_dict(metrics, batch_size=len(expression))

    def configure_optimizers(self) -> Any:
        """Make the optimiser, AdamW (Loshchilov & Hutter 2019).

        Matrices of the networks decay, those of the head by a rate of their own; biases, norms, deviations and label
        priors, which are levels, do not. In a training that starts from a run, the learning rate falls linearly to
        zero at the last step.

        Returns
        -------
        torch.optim.Optimizer or dict
            The optimiser, or the optimiser and the schedule of its learning rate; an override may return whatever
            Lightning takes.
        """
        settings = self.config.optimisation
        tables = [prior for prior in self.model.priors if isinstance(prior, LabelPrior)]
        levels = {id(each) for each in (*self.model.label_mean, *(each for t in tables for each in t.parameters()))}
        matrices = [each for each in self.model.parameters() if each.ndim > 1 and id(each) not in levels]
        of_head = {id(each) for each in self.model.denoiser.head.parameters()}
        decayed = {id(parameter) for parameter in matrices}
        optimizer = torch.optim.AdamW(
            [
                {"params": [e for e in matrices if id(e) not in of_head], "weight_decay": settings.weight_decay},
                {"params": [e for e in matrices if id(e) in of_head], "weight_decay": settings.head_decay},
                {"params": [e for e in self.parameters() if id(e) not in decayed], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            # a fifth of a step on a CPU; Lightning can't clip for it under mixed precision. Elsewhere torch's choice
            fused=True if self.device.type == "cpu" and settings.precision != "bfloat16" else None,
        )
        if self.config.descent is None:
            return optimizer
        falling = LinearLR(optimizer, 1.0, 0.0, max(1, int(self.trainer.estimated_stepping_batches)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


def plan_name(plan: type[TrainingPlan]) -> str:
    """Name a plan by its module and class."""
    return f"{plan.__module__}.{plan.__qualname__}"
