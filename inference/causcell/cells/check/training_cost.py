"""An estimate of the time and memory that training takes.

Measured with the default settings on one core of a busy server (Intel Xeon with AVX-512, torch 2.13; 500 to 3,300
cells, 300 to 2,000 genes): CPU seconds an epoch are ``_PER_EPOCH``, and cells times ``_PER_CELL + _PER_VALUE * genes``,
to a fifth. Training stops early, there after 125 to 200 epochs: the estimate is of these two.
"""

from __future__ import annotations

import os
from typing import Any

from causcell._internal.units import format_count, format_duration, format_size

_PER_EPOCH = 0.15  # seconds
_PER_CELL = 4.5e-4
_PER_VALUE = 1.6e-7
_EPOCH_CELLS = 100_000  # at most, as optimisation.epoch_cells has it
_EPOCHS = 200
_USUAL_EPOCHS = 125
_START = 10.0
_MEMORY = 700e6  # bytes: torch, lightning, the weights of a small model
_BYTES_A_VALUE = 16  # of CSR float32 and int32, twice: a copy is made while it is put together
_MOST_VALUES = 256e6  # bytes of these: beyond it they are in a file
_BYTES_A_CELL = 100  # name, labels, order
_BYTES_A_GENE = 45e3  # weights, moments and averages of the layers as wide as the panel


def estimate_training(cells: int, genes: int, nonzero: float) -> dict[str, Any]:
    """Estimate what training with the default settings takes on this machine's CPUs.

    Parameters
    ----------
    cells, genes
        Cells trained on, and genes of the panel.
    nonzero
        Share of values that are not zero.

    Returns
    -------
    dict
        ``seconds`` (to all epochs), ``usual_seconds`` (to where it often stops), ``bytes``, ``cpus`` and ``text``.

    Examples
    --------
    >>> facts = estimate_training(2000, 2000, 0.1)
    >>> sorted(facts)
    ['bytes', 'cpus', 'seconds', 'text', 'usual_seconds']
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    epoch = _PER_EPOCH + min(cells, _EPOCH_CELLS) * (_PER_CELL + _PER_VALUE * genes)
    values = min(cells * genes * nonzero * _BYTES_A_VALUE, _MOST_VALUES)
    size = int(_MEMORY + values + cells * _BYTES_A_CELL + genes * _BYTES_A_GENE)
    seconds, usual = _START + _EPOCHS * epoch, _START + _USUAL_EPOCHS * epoch
    text = (
        f"training would take about {format_duration(usual)} to {format_duration(seconds)} of one CPU core and "
        f"{format_size(size)} of memory with a panel of {genes:,} genes (an estimate; "
        f"{format_count(cpus, 'CPU')} here, and a GPU is faster)"
    )
    return {"seconds": seconds, "usual_seconds": usual, "bytes": size, "cpus": cpus, "text": text}
