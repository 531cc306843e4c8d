"""What a machine offers to a training, and what it must not take for its own."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from causcell.errors import ConfigurationError, format_list
from causcell_training.config import OptimisationConfig


class OneProcess(LightningEnvironment):
    """A training in this process alone, on one device.

    SLURM, torchrun, MPI, LSF and Kubeflow set variables that Lightning takes for those of a distributed training; a
    batch job that asked for four tasks to get four CPUs is none.
    """

    @property
    def creates_processes_externally(self) -> bool:
        """Tell Lightning that nobody else starts processes of this training."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return 1

    def global_rank(self) -> int:
        """Return its number."""
        return 0

    def local_rank(self) -> int:
        """Return its number."""
        return 0

    def node_rank(self) -> int:
        """Return the number of its node."""
        return 0


class OwnProcesses(OneProcess):
    """A training in processes of this machine that the training itself starts, whatever a batch system has set."""

    main_address = "127.0.0.1"

    def __init__(self) -> None:
        super().__init__()
        self._processes, self._rank, self._started_by = 1, 0, os.getpid()

    def world_size(self) -> int:
        """Return the number of processes."""
        return self._processes

    def set_world_size(self, size: int) -> None:
        """Take the number of processes."""
        self._processes = size

    def global_rank(self) -> int:
        """Return the number of this one."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Take the number of this one."""
        self._rank = rank

    def local_rank(self) -> int:
        """Return the number of this one on this machine, which Lightning tells a process that it has started."""
        return 0 if os.getpid() == self._started_by else int(os.environ["LOCAL_RANK"])


def find_share() -> tuple[int, int]:
    """Return which of how many processes of a training this is."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def check_accelerator(name: str) -> None:
    """Raise `ConfigurationError` if the accelerator is not there, naming those that are."""
    available = ["auto", "cpu", *(["gpu"] if _has_gpu() else [])]
    if name not in available:
        built = torch.version.cuda or torch.version.hip
        reason = "torch finds none on this machine" if built else f"torch {torch.__version__} is built without one"
        raise ConfigurationError(
            f"optimisation.accelerator={name!r}: {reason}; available are {format_list(available)}"
            + ("" if built else ", or install a torch for GPUs")
        )


def check_devices(settings: OptimisationConfig) -> None:
    """Raise `ConfigurationError` if there are fewer GPUs than devices, or the strategy is not for these devices."""
    named = f"strategy={settings.strategy!r}"
    if settings.devices == 1:
        if settings.strategy != "auto":
            raise ConfigurationError(
                f"{named} is how several devices' processes start, and there is one device; set devices=, "
                "or leave the strategy out"
            )
        return
    if settings.accelerator == "cpu" or not _has_gpu():
        return
    there = max(torch.cuda.device_count(), 1)
    if settings.devices > there:
        raise ConfigurationError(
            f"devices={settings.devices}: torch finds {there} GPU{'s' if there > 1 else ''} here; take as "
            "many, or optimisation.accelerator='cpu'"
        )
    if settings.strategy == "ddp_fork":
        raise ConfigurationError(
            f"{named} copies a process, which GPUs can't be used in afterwards; take 'ddp_spawn', or "
            "optimisation.accelerator='cpu'"
        )


def find_strategy(settings: OptimisationConfig) -> str:
    """Return Lightning's name of the strategy; parameters that a step does not use are none's fault."""
    if settings.devices == 1:
        return "auto"
    started = "ddp_spawn" if settings.strategy == "auto" else settings.strategy
    return f"{started}_find_unused_parameters_true"


def check_shares(settings: OptimisationConfig, rows: np.ndarray) -> None:
    """Raise `ConfigurationError` if batches of training rows leave a device fewer than two cells."""
    least = min(settings.batch_size, len(rows))
    if settings.devices > 1 and least < 2 * settings.devices:
        raise ConfigurationError(
            f"devices={settings.devices}: batches of {least} cells are shared out among them, two a "
            f"device at least; take {max(1, least // 2)} or fewer, or larger batches (optimisation.batch_size)"
        )


def find_precision(settings: OptimisationConfig) -> Literal["bf16-mixed", "32-true"]:
    """Return Lightning's name of the precision; raises `ConfigurationError` for bfloat16 on a CPU that has none."""
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    if settings.precision == "bfloat16" and not on_gpu and not _computes_bfloat16():
        raise ConfigurationError(
            "optimisation.precision='bfloat16': this CPU has no instructions for it (AVX512_BF16 or AMX), and training "
            "would be slower than with 'float32'; take that, or 'auto'"
        )
    lowered = settings.precision == "bfloat16" or (on_gpu and settings.precision == "auto")
    return "bf16-mixed" if lowered else "32-true"


def _computes_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()
