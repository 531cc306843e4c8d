"""CPA: an autoencoder with an adversary, whose latent code is a basal state plus an embedding of each label.

cpa-tools 0.8.8 is mended from outside for scvi-tools 1.4 and Lightning 2: imports of packages that a model does without
(tkinter, rdkit, ray), names that have moved, how a device is named, two hooks at the end of an epoch, and the callback
that keeps the best state. Its r2 of training batches is logged alone, and takes three quarters of the time: it is off;
that of validation cells, by which it stops, is not.
"""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import scvi.model._utils
import scvi.train._callbacks
import torch
from anndata import AnnData
from packages import import_package
from scvi.distributions import NegativeBinomial
from scvi_shared import (
    BATCH,
    PREDICTIVE_SAMPLES,
    CountModel,
    control_label,
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

PERTURBATION, SPLIT, CONTROL = "cpa_perturbation", "cpa_split", "control"

MODEL = {
    "n_latent": 64,
    "recon_loss": "nb",
    "doser_type": "linear",
    "n_hidden_encoder": 128,
    "n_layers_encoder": 2,
    "n_hidden_decoder": 512,
    "n_layers_decoder": 2,
    "use_batch_norm_encoder": True,
    "use_layer_norm_encoder": False,
    "use_batch_norm_decoder": False,
    "use_layer_norm_decoder": True,
    "dropout_rate_encoder": 0.0,
    "dropout_rate_decoder": 0.1,
    "variational": False,
}
PLAN = {
    "n_epochs_pretrain_ae": 30,
    "n_epochs_adv_warmup": 50,
    "n_epochs_mixup_warmup": 0,
    "mixup_alpha": 0.0,
    "adv_steps": None,
    "n_hidden_adv": 64,
    "n_layers_adv": 3,
    "use_batch_norm_adv": True,
    "use_layer_norm_adv": False,
    "dropout_rate_adv": 0.3,
    "reg_adv": 20.0,
    "pen_adv": 5.0,
    "lr": 3e-4,
    "wd": 4e-7,
    "adv_lr": 3e-4,
    "adv_wd": 4e-7,
    "adv_loss": "cce",
    "doser_lr": 3e-4,
    "doser_wd": 4e-7,
    "do_clip_grad": True,
    "gradient_clip_value": 1.0,
    "step_size_lr": 10,
}
"""Settings of its tutorial on Kang's cells (theislab/cpa, docs/tutorials/Kang.ipynb).

The size of a batch and when to stop are ``train``'s defaults. The tutorial's (512 cells; five validations, five epochs
apart) are for seven times these cells: here they would stop before the adversary has its full weight.
"""


class _KeepBest(pl.Callback):
    """Keep the weights of the best validation, and return to them at the end of training."""

    def __init__(self, monitor: str, mode: str, **ignored: Any) -> None:
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.best, self.state = -np.inf, None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        score = self.sign * float(trainer.callback_metrics[self.monitor])
        if score > self.best:
            self.best, self.state = score, copy.deepcopy(pl_module.module.state_dict())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.state is not None:
            pl_module.module.load_state_dict(self.state)


def _import_cpa() -> ModuleType:
    """Import CPA with stand-ins for what it imports and what it misses of scvi-tools."""
    stand_ins = {
        "tkinter": {"N": None},
        "rdkit": {},
        "rdkit.Chem": {"AllChem": None},
        "cpa._tuner": {"run_autotune": None},
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    sys.modules["rdkit"].Chem = sys.modules["rdkit.Chem"]
    scvi.model._utils.parse_use_gpu_arg = lambda use_gpu, return_device: ("gpu" if use_gpu else "cpu", None, None)
    scvi.settings.dl_pin_memory_gpu_training = False
    scvi.train._callbacks.SaveBestState = _KeepBest
    return import_package("cpa")


_cpa = _import_cpa()


class _Module(_cpa._model.CPAModule):
    """Give no r2 of training batches: it is logged alone."""

    def r2_metric(self, *args: Any, **kwargs: Any) -> tuple[float, float]:
        return (0.0, 0.0) if self.training else super().r2_metric(*args, **kwargs)


class _Plan(_cpa._model.CPATrainingPlan):
    """Collect what the two removed hooks of Lightning were handed, and hand it to them."""

    training_epoch_end = validation_epoch_end = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.collected: dict[str, list[Any]] = {"training": [], "validation": []}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.collected["training"].append(super().training_step(batch, batch_idx))

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.collected["validation"].append(super().validation_step(batch, batch_idx))

    def on_train_epoch_end(self) -> None:
        self._end("training")

    def on_validation_epoch_end(self) -> None:
        self._end("validation")

    def _end(self, stage: str) -> None:
        getattr(_cpa._task.CPATrainingPlan, f"{stage}_epoch_end")(self, self.collected[stage])
        self.collected[stage].clear()


def _runner(*args: Any, use_gpu: bool, **kwargs: Any) -> Any:
    return scvi.train.TrainRunner(*args, accelerator="gpu" if use_gpu else "cpu", **kwargs)


for _name, _value in {
    "CPAModule": _Module,
    "CPATrainingPlan": _Plan,
    "TrainRunner": _runner,
    "EarlyStopping": pl.callbacks.EarlyStopping,
    "tqdm": lambda each: each,
}.items():
    setattr(_cpa._model, _name, _value)


class Adapter(CountModel):
    """CPA: the first concept intervened on is the perturbation, the others are covariates.

    Where every concept is present or absent (``yes``, ``no``), together they are one perturbation of several parts.
    """

    name, version, licence = "CPA", version("cpa-tools"), "MIT (its metadata)"
    lines = 11
    notes = (
        "counts",
        "is told a cell's labels, and the target's, at test time",
        "is told a cell's total of counts at test time (its own over the panel)",
        "deterministic encoder; samples from its negative binomial",
        f"means of log1p over {PREDICTIVE_SAMPLES} predictive samples",
        "its embedding of a concept is looked up by the label, so that nothing is read from the cell: not scored",
    )

    def __init__(self, job: Any) -> None:
        self.job, self.concepts = job, intervened(job)
        prepare(job)

    def fit(self, cells: AnnData) -> None:
        """Train with the settings of its tutorial: at most 2,000 epochs, validated every tenth."""
        _, validation = split_indices(cells)
        self.presences = all({*map(str, cells.obs[name].unique())} <= {"yes", "no"} for name in self.concepts)
        self.control = CONTROL if self.presences else control_label(self.job, self.concepts[0], cells)
        self.covariates = [] if self.presences else self.concepts[1:]
        registered = self._set_up(cells)
        registered.obs[SPLIT] = "train"
        registered.obs.iloc[validation, registered.obs.columns.get_loc(SPLIT)] = "valid"
        self.model = _cpa.CPA(registered, split_key=SPLIT, valid_split="valid", seed=self.job.seed, **MODEL)
        self.model.train(
            max_epochs=self.job.epochs or 2000,
            use_gpu=self.job.device == "cuda",
            batch_size=128,
            plan_kwargs=dict(PLAN, n_epochs_verbose=10**9),
            early_stopping_patience=10,
            check_val_every_n_epoch=10,
            save_path=False,
            enable_progress_bar=False,
        )
        self.facts = {"epochs": int(self.model.epoch_history["epoch"].max()) + 1}

    def embeddings(self, cells: AnnData) -> dict[str, np.ndarray]:
        latent = self.model.get_latent_representation(self._prepared(cells), batch_size=BATCH)
        return {"unexplained": np.asarray(latent["latent_basal"].X)}

    def size_on_disk(self) -> int:
        return saved_size(self.model)

    def _set_up(self, cells: AnnData) -> AnnData:
        """Copy cells with CPA's columns: a perturbation, its covariates, what it derives of them."""
        registered = with_counts(cells, self.concepts)
        for concept in self.concepts:
            registered.obs[concept] = registered.obs[concept].astype(str)
        registered.obs[PERTURBATION] = self._perturbations(registered.obs)
        _cpa.CPA.setup_anndata(
            registered,
            perturbation_key=PERTURBATION,
            control_group=self.control,
            categorical_covariate_keys=list(self.covariates),
            is_count_data=True,
            max_comb_len=len(self.concepts) if self.presences else 1,
        )
        return registered

    def _prepared(self, cells: AnnData) -> AnnData:
        """Copy cells that were not trained on; what a prediction doesn't read gets labels that training had.

        CPA refuses a combination of labels that was not registered with the training cells, though its network reads
        the perturbation's parts and each covariate alone.
        """
        registered, trained = self._set_up(cells), self.model.adata.obs
        for column in (PERTURBATION, "CPA_cat"):
            registered.obs[column] = str(trained[column].iloc[0])
        return registered

    def _perturbations(self, labels: pd.DataFrame) -> pd.Series | list[str]:
        if not self.presences:
            return labels[self.concepts[0]]
        present = labels[self.concepts].to_numpy() == "yes"
        return ["+".join(np.array(self.concepts)[row]) or CONTROL for row in present]

    def _rates(self, cells: AnnData, do: dict[str, str]) -> torch.Tensor:
        """Return the means of counts [n x G] by CPA's ``predict``, of cells with labels set."""
        changed = self._prepared(relabelled(cells, do))
        self.model.predict(changed, batch_size=BATCH)
        return torch.as_tensor(changed.obsm["CPA_pred"])

    def _predictive(self, rates: torch.Tensor) -> NegativeBinomial:
        return NegativeBinomial(mu=rates, theta=self.model.module.px_r.detach().cpu().exp())

    @torch.inference_mode()
    def expect(self, cells: AnnData, do: dict[str, str]) -> np.ndarray:
        """Average log1p of samples of its negative binomial [n x G]."""
        parts = zip(self._rates(cells, do).split(BATCH), totals(cells).split(BATCH), strict=True)
        return torch.cat(
            [
                expect_log1p(self._predictive(rates.expand(PREDICTIVE_SAMPLES, *rates.shape)), total)
                for rates, total in parts
            ]
        ).numpy()

    @torch.inference_mode()
    def draw(self, cells: AnnData, do: dict[str, str], draws: int, seed: int) -> np.ndarray:
        """Draw samples of its negative binomial [draws x n x G]."""
        predictive, total = self._predictive(self._rates(cells, do)), totals(cells)
        torch.manual_seed(seed)
        return np.stack([log1p_of_counts(predictive.sample(), total).numpy() for _ in range(draws)])
