"""Heads: the meaning of the denoiser's last layer, its losses, the x0 it predicts, and its posterior draws.

Everything is on the standardised scale; alpha_bar is abar of each cell's time, [B x 1]. A head is a subclass of `Head`,
which declares all that others read of one. `register_head` adds one from outside, and
`causcell_training.heads.contract.check_head` tells whether it keeps to what training, export and the client count on.
Nothing here imports PyTorch before a head is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from causcell._deprecation import warn_deprecated

if TYPE_CHECKING:
    from causcell_training.heads.base import REGRESSION_PRESETS, Head
    from causcell_training.heads.plain import PlainHead
    from causcell_training.heads.registry import LOSSES, head_class, known_heads, register_head
    from causcell_training.heads.skip import SkipHead
    from causcell_training.heads.spike_slab import (
        LARGEST_BELOW_ONE,
        Posterior,
        SpikeSlabHead,
        normal_quantile,
        spike_slab_posterior,
    )

__all__ = [
    "LARGEST_BELOW_ONE",
    "LOSSES",
    "REGRESSION_PRESETS",
    "Head",
    "PlainHead",
    "Posterior",
    "SkipHead",
    "SpikeSlabHead",
    "head_class",
    "known_heads",
    "normal_quantile",
    "register_head",
    "spike_slab_posterior",
]

_HOMES = {
    "Head": "base",
    "LOSSES": "registry",
    "PlainHead": "plain",
    "REGRESSION_PRESETS": "base",
    "SkipHead": "skip",
    "head_class": "registry",
    "known_heads": "registry",
    "register_head": "registry",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"causcell_training.heads.{_HOMES.get(name, 'spike_slab')}"), name)
    if name == "HEADS":
        from causcell_training.heads.registry import head_class, known_heads

        warn_deprecated("causcell_training.heads.HEADS", "causcell_training.heads.head_class()")
        return {known: head_class(known) for known in known_heads()}
    raise AttributeError(f"module 'causcell_training.heads' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
