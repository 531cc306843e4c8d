"""An installed package that brings heads or solvers, as far as the import system can tell."""

from pathlib import Path

import pytest


def install_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, entry: str) -> None:
    """Lay down, for one test, what a package named ``outside`` tells of itself: one entry point."""
    told = folder / "outside-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    monkeypatch.syspath_prepend(folder)
