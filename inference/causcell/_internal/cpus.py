"""The CPUs that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/proc/self/cgroup")
_HIERARCHY = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    The CPUs that it may run on, or the CPU time that its control groups allow it (containers, SLURM, Kubernetes) where
    that is less; a part of a CPU counts as one.

    Examples
    --------
    >>> 1 <= available_cpus() <= os.cpu_count()
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(_GROUPS, _HIERARCHY))))


def _quota(groups: Path, hierarchy: Path) -> float:
    """Return the CPUs' worth of time that the control groups of a process allow it, infinite where they do not say.

    Parameters
    ----------
    groups
        File that names the groups, a line ``number:controllers:path`` each.
    hierarchy
        Folder of the groups. In a container the path may be the host's: then the folder itself is the group.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return math.inf
    smallest = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(hierarchy, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                smallest = min(smallest, _cpus(quota, period))
        elif "cpu" in controllers.split(","):
            for root in (hierarchy / controllers, hierarchy / "cpu"):
                for folder in _upwards(root, path):
                    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    smallest = min(smallest, _cpus(quota, period))
    return smallest


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those of all groups that hold it."""
    inside = PurePosixPath(path.lstrip("/"))
    for each in (inside, *inside.parents):
        yield root / each


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _cpus(quota: str, period: str) -> float:
    """Return the CPUs' worth of a quota in a period; infinite for ``max``, -1 or nothing."""
    try:
        allowed, length = int(quota), int(period)
    except ValueError:
        return math.inf
    return allowed / length if allowed > 0 and length > 0 else math.inf
