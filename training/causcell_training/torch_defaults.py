"""Torch's process-wide settings, which other packages change: a model is made and run under torch's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from causcell._internal.cpus import available_cpus


@contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Work as if no default of torch or numpy had been changed, within a ``with`` block; the caller's come back.

    Default type and device, modes without gradients, autocast, and numpy's handling of floating-point errors.

    Examples
    --------
    >>> torch.set_default_dtype(torch.float64)
    >>> with own_torch_defaults():
    ...     torch.zeros(1).dtype
    torch.float32
    >>> torch.set_default_dtype(torch.float32)
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":  # the mode that sets it slows every call
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def own_threads() -> Iterator[None]:
    """Compute with no more threads than this process may use CPUs, and leave torch's number of them as it was.

    A number that the user set by OMP_NUM_THREADS is kept.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(before, available_cpus()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
