"""Simulated cells with a concept of each kind, whose values their expression tells, and settings to train on them."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from short_runs import tiny_config

from causcell_training import TrainConfig

CONCEPTS = ("line", "age:continuous", "dose:ordinal", "pert:set", "drug:labels")
EDGES = ("line:age",)


def valued_cells(count: int = 240, seed: int = 0, without: tuple[str, ...] = ()) -> anndata.AnnData:
    """Counts of 30 genes; some cells lack a value, and no cell has the sets that ``without`` names."""
    rng = np.random.default_rng(seed)
    sets = [each for each in ("ctrl", "A", "B", "A+B", "B+C", "C") if each not in without]
    obs = pd.DataFrame(
        {
            "line": rng.choice(["k562", "hela"], count),
            "age": rng.uniform(20, 60, count),
            "dose": rng.choice([0, 1, 10], count),
            "pert": rng.choice(sets, count),
            "drug": rng.choice(["x", "y", "z"], count),
        },
        index=[f"cell_{seed}_{i}" for i in range(count)],
    )
    signals = [
        (obs["line"] == "hela").to_numpy(float),
        (obs["age"].to_numpy() - 20) / 40,
        np.log1p(obs["dose"].to_numpy(float)) / 2.4,
        *(obs["pert"].str.split("+").map(lambda each, m=m: m in each).to_numpy(float) for m in "ABC"),
        *((obs["drug"] == drug).to_numpy(float) for drug in "xy"),
    ]
    log_rate = 0.5 + np.zeros((count, 30))
    for i, signal in enumerate(signals):
        log_rate[:, 3 * i : 3 * i + 3] += 2 * signal[:, None]
    for name in ("age", "pert", "drug"):
        obs[name] = obs[name].where(rng.random(count) > 0.05)
    counts = rng.poisson(np.exp(log_rate)).astype(np.float32)
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))


def write_features(folder: Path) -> Path:
    """Features of the drugs, one of which no cell carries."""
    file = folder / "drugs.csv"
    file.write_text("drug,size,charge\nx,1,0\ny,0,1\nz,0,0\nNEW,0.5,0.5\n")
    return file


def valued_config(folder: Path, **overrides: Any) -> TrainConfig:
    """Six epochs of a model that takes a second, with a concept of each kind."""
    return tiny_config(
        **{
            "concept": CONCEPTS,
            "edge": EDGES,
            "label_features": [f"drug={write_features(folder)}"],
            "set_control": ["pert=ctrl"],
            **overrides,
        }
    )
