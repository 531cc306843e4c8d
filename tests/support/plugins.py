"""An installed package that brings heads, solvers or metrics, as far as the import system can tell."""

from pathlib import Path

import pytest


def write_plugin(folder: Path, group: str, *entries: str, package: str = "outside") -> None:
    """Lay down what an installed package tells of itself: its name, and entry points."""
    told = folder / f"{package}-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("\n".join([f"[{group}]", *entries]) + "\n")


def install_plugin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, *entries: str, package: str = "outside"
) -> None:
    """Install such a package for one test."""
    write_plugin(folder, group, *entries, package=package)
    monkeypatch.syspath_prepend(folder)
