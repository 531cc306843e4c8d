"""What a machine offers to a training, and what it must not take for its own."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from causcell.errors import ConfigurationError, format_list


class OneProcess(LightningEnvironment):
    """A training in this process alone, on one device.

    SLURM, torchrun, MPI, LSF and Kubeflow set variables that Lightning takes for those of a distributed training; a
    batch job that asked for four tasks to get four CPUs is none.
    """

    @property
    def creates_processes_externally(self) -> bool:
        """No: nobody else starts processes of this training."""
        return False

    def world_size(self) -> int:
        """One process."""
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


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def count_usable_cpus() -> int:
    """Count the CPUs that this process may use: those of its affinity, and not more than its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota()
    return max(1, min(count, int(quota))) if quota else count


def _read_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Read the CPUs that a container may use by its quota (control groups of version 2 or 1); none if unlimited."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None
