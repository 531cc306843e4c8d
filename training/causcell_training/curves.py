"""Figures of a training run; each function takes an ``ax`` and returns it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from causcell._internal.choices import check_choice
from causcell_training.run_folder import METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curves(run: str | os.PathLike[str], names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw terms and measures of a run by epoch.

    Parameters
    ----------
    run
        The run folder; training need not have finished.
    names
        Names of ``metrics.csv``, such as ``train/reconstruction`` and ``held_out/mse``.
    ax
        Axes to draw into; new ones where none are given.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn into, one line for each name.

    Raises
    ------
    ConfigurationError
        A name that is not in ``metrics.csv``.
    """
    import matplotlib.pyplot as plt
    import pandas as pd
    from matplotlib.ticker import MaxNLocator

    ax = ax or plt.subplots(figsize=(6, 4))[1]
    metrics = pd.read_csv(Path(run) / METRICS_FILE)
    known = list(dict.fromkeys(metrics["name"]))
    for name in names:
        check_choice(name, known, f"{METRICS_FILE}: name")
        rows = metrics[metrics["name"] == name]
        ax.plot(rows["epoch"], rows["value"], label=name, marker="o" if len(rows) == 1 else None)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False)
    return ax
