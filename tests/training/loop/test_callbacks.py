"""The metrics file: every term and measure, each epoch once."""

import math
from pathlib import Path

import anndata
import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import pytest
from short_runs import EPOCHS, read_metrics, short_config

from causcell_training import Run, fit

TERMS = {"reconstruction", "classification", "exogenous_kl", "endogenous_kl", "adversary", "discriminators", "total"}


def test_every_term_and_measure_is_in_the_metrics(finished: Run) -> None:
    rows = read_metrics(finished.path / "metrics.csv")
    assert list(rows[0]) == ["epoch", "step", "name", "value"]
    by_epoch: dict[int, set[str]] = {}
    for row in rows:
        by_epoch.setdefault(int(row["epoch"]), set()).add(row["name"])
        assert math.isfinite(float(row["value"]))
    assert sorted(by_epoch) == list(range(EPOCHS))
    measures = {f"held_out/accuracy_{name}" for name in finished.model.schema.names} | {"held_out/mse"}
    for epoch, names in by_epoch.items():
        assert {f"train/{term}" for term in TERMS} <= names
        assert (measures <= names) == (epoch % 2 == 1)  # validated every second epoch
    assert len(rows) == len({(row["epoch"], row["name"]) for row in rows})


class EndedEarly(lightning.Callback):
    """Ends the second epoch with its first batch; keeps the cells and the loss of each batch, by epoch."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[int, float]]] = [[], []]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.seen[trainer.current_epoch].append((len(batch[0]), float(outputs["loss"])))
        trainer.should_stop = trainer.current_epoch == 1


def test_a_term_is_the_mean_over_the_cells_of_an_epoch_and_of_one_that_ended_early(
    cells: anndata.AnnData, tmp_path: Path
) -> None:
    ended = EndedEarly()
    fit(cells, tmp_path / "run", config=short_config(optimisation__validate_every=1), callbacks=[ended])
    totals = [float(r["value"]) for r in read_metrics(tmp_path / "run" / "metrics.csv") if r["name"] == "train/total"]
    sizes, losses = zip(*(np.array(epoch).T for epoch in ended.seen), strict=True)
    assert len(sizes[0]) > len(sizes[1]) == 1
    expected = [np.average(loss, weights=size) for size, loss in zip(sizes, losses, strict=True)]
    assert totals == pytest.approx(expected, rel=1e-4)


def test_a_resumed_runs_metrics_hold_every_epoch_once(cells: anndata.AnnData, finished: Run, interrupted: Path) -> None:
    fit(cells, interrupted, config=short_config(), resume=True)
    told = [[(row["epoch"], row["name"]) for row in read_metrics(path / "metrics.csv")]
            for path in (interrupted, finished.path)]  # fmt: skip
    assert told[0] == told[1]


def test_metrics_are_a_table_for_plots(finished: Run) -> None:
    """Columns and names are what `causcell_training.curves.training_curves` reads."""
    table = pd.read_csv(finished.path / "metrics.csv")
    curve = table[table["name"] == "train/reconstruction"]
    assert curve["epoch"].tolist() == list(range(EPOCHS))
    assert curve["step"].is_monotonic_increasing
