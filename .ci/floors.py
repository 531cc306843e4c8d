"""Lower bounds of pyproject.toml: as pip's constraints, or (``--table FILE``) beside the versions that were installed.

It runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(\[[^]]*\])?>=(?P<floor>[0-9.]+)")


def floors(path: Path = Path(__file__).parents[1] / "pyproject.toml") -> dict[str, str]:
    """Return the lowest version of each direct dependency but those of development and of the site, by name."""
    project = tomllib.loads(path.read_text())["project"]
    return dict(
        _read(
            project["dependencies"],
            *(e for n, e in project["optional-dependencies"].items() if n not in ("dev", "docs")),
        )
    )


def _read(*lists: list[str]) -> Iterator[tuple[str, str]]:
    for requirement in (each for listed in lists for each in listed):
        if requirement.startswith("causcell["):
            continue
        found = _REQUIREMENT.match(requirement)
        if found is None:
            raise SystemExit(f"{requirement!r} of pyproject.toml has no lower bound")
        yield found["name"], found["floor"]


def _table(report: Path) -> str:
    installed: dict[str, dict[str, str]] = {}
    for line in report.read_text().splitlines()[1:]:
        environment, package, version = line.split("\t")
        installed.setdefault(environment, {})[_normal(package)] = version
    rows = [["package", "lower bound", *installed]]
    for name, floor in sorted(floors().items()):
        rows.append([name, floor, *(versions.get(_normal(name), "-") for versions in installed.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--table"]:
        print(_table(Path(sys.argv[2])))
    else:
        print("\n".join(f"{name}=={floor}" for name, floor in floors().items()))
