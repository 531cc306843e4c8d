"""What a machine offers to a training, and what it must not take for its own."""

from __future__ import annotations

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
