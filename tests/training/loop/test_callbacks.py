"""The metrics file: every term and measure, each epoch once."""

import math
from pathlib import Path

import anndata
import pandas as pd
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
