import math
import os
from pathlib import Path

import pytest

from causcell._internal import cpus


def tree(root: Path, groups: str, files: dict[str, str]) -> float:
    """Return the quota that a made-up tree of control groups allows."""
    (root / "groups").write_text(groups)
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)
    return cpus._quota(root / "groups", root / "fs")


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/host/path/of/a/container\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("0::/job\n", {"job/cpu.max": "nonsense"}, math.inf),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("4:memory:/\n", {"memory/cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_the_smallest_quota_of_the_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], quota: float
) -> None:
    assert tree(tmp_path, groups, files) == quota


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert cpus._quota(tmp_path / "none", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.5, 2), (2.0, 2), (99.0, 8), (math.inf, 8)])
def test_a_part_of_a_cpu_counts_as_one(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpus, "_quota", lambda *_: quota)
    assert cpus.available_cpus() == expected


def test_fewer_cpus_than_the_quota_are_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cpus.available_cpus() == 1
