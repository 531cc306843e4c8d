"""The training plan: what decays, and what a subclass may change."""

from pathlib import Path
from typing import Any

import anndata
import pytest
import torch
from short_runs import assert_same_weights, differ, interrupt, read_metrics, short_config
from torch import Tensor

from causcell.errors import RunError
from causcell_training import Run, TrainingPlan, fit
from causcell_training.data.cells import prepare


def test_weight_decay_shrinks_the_networks_matrices_alone(cells: anndata.AnnData) -> None:
    """A step without gradients: what decays shrinks by learning rate times decay, all else stays."""
    decay = {"optimisation.weight_decay": 10.0, "optimisation.head_decay": 20.0}
    config = short_config(**decay, **{"optimisation.learning_rate": 0.01})
    plan = TrainingPlan(prepare(cells, config), config)
    before = {name: parameter.detach().clone() for name, parameter in plan.named_parameters()}
    for parameter in plan.parameters():
        parameter.grad = torch.zeros_like(parameter)
    plan.configure_optimizers().step()
    for name, parameter in plan.named_parameters():
        level = name.startswith("model.label_mean")  # where a label's embeddings lie
        decays = name.startswith("model.") and parameter.ndim > 1 and not level
        kept = 0.8 if name.startswith("model.denoiser.head.") else 0.9
        torch.testing.assert_close(parameter.detach(), before[name] * (kept if decays else 1.0), msg=name)


def test_a_run_of_a_version_without_the_heads_own_decay_is_not_resumed(cells: anndata.AnnData) -> None:
    config = short_config()
    plan = TrainingPlan(prepare(cells, config), config)
    checkpoint: dict[str, Any] = {"optimizer_states": [{"param_groups": [{}, {}]}]}
    plan.on_save_checkpoint(checkpoint)
    with pytest.raises(RunError, match="trained 2 groups of weights where this one has 3"):
        plan.on_load_checkpoint(checkpoint)


class LighterPlan(TrainingPlan):
    """A penalty on the loss, and a schedule of the learning rate."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        penalty = self.model.encoder.linear.weight.square().sum()
        self.log("train/penalty", penalty, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return super().training_step(batch) + penalty

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)}


class SamePlan(TrainingPlan):
    """Changes nothing."""


def test_a_plan_of_ones_own_trains_and_stands_in_the_provenance(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    run = fit(cells, tmp_path / "run", config=short_config(), plan=LighterPlan)
    penalties = [
        float(row["value"]) for row in read_metrics(run.path / "metrics.csv") if row["name"] == "train/penalty"
    ]
    assert penalties == sorted(penalties, reverse=True)  # it is trained down
    assert differ(run, finished)
    assert run.provenance["plan"].endswith("LighterPlan")
    assert_same_weights(Run.load(run.path), run)


def test_a_plan_that_changes_nothing_gives_the_same_weights(
    cells: anndata.AnnData, finished: Run, tmp_path: Path
) -> None:
    assert_same_weights(fit(cells, tmp_path / "run", config=short_config(), plan=SamePlan), finished)
    assert "plan" not in finished.provenance


def test_another_plan_is_not_resumed(cells: anndata.AnnData, interrupted: Path) -> None:
    with pytest.raises(RunError, match=r"plan=.*TrainingPlan, not .*SamePlan"):
        fit(cells, interrupted, config=short_config(), plan=SamePlan, resume=True)


def test_a_run_is_resumed_by_its_own_plan(
    cells: anndata.AnnData, tmp_path: Path, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 3, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, tmp_path / "run", config=short_config(), plan=SamePlan)
    assert_same_weights(fit(cells, tmp_path / "run", config=short_config(), plan=SamePlan, resume=True), finished)
