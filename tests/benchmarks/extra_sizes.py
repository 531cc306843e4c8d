"""Add up what each extra of pyproject.toml takes on disk here, with all that it needs: the table of docs/install.md.

python tests/benchmarks/extra_sizes.py
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def needed(requirements: list[str], found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Add the packages that requirements ask for, each with its extras; a missing one is an error."""
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == "causcell":
            for extra in requirement.extras:
                needed(EXTRAS[extra], found)
        elif name not in found or requirement.extras - found[name]:
            found.setdefault(name, set()).update(requirement.extras)
            needed([each for each in metadata.requires(name) or [] if _applies(each, requirement.extras)], found)
    return found


def _applies(text: str, extras: set[str]) -> bool:
    marker = Requirement(text).marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def megabytes(names: set[str]) -> float:
    """Add up the files of packages as their records list them."""
    paths = [Path(str(file.locate())) for name in names for file in metadata.files(name) or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    """Print a line an extra."""
    base = needed(PROJECT["dependencies"], {})
    print(f"(none): {len(base)} packages, {megabytes(set(base)):,.0f} MB")
    for extra, requirements in EXTRAS.items():
        try:
            found = needed(requirements, dict(base))
        except metadata.PackageNotFoundError as error:
            print(f"[{extra}]: not measured, {error} is not installed")
        else:
            print(f"[{extra}]: {len(found)} packages, {megabytes(set(found)):,.0f} MB")


if __name__ == "__main__":
    main()
