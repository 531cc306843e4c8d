"""One environment for each file of requirements: built under ``build/peers``, or the reason why it could not be.

A file of requirements has pinned lines, and comments that say how they are installed:

``# systems: scgen, cpa``
    adapters that run in it
``# python: 3.11``
    the Python that it needs, if not this one
``# options: --no-deps``
    options of pip for the lines that follow, which are installed in a call of their own
``# unavailable: michigan: needs TensorFlow 1, which ...``
    why a system cannot be had at all
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from systems import FOLDER, OWN, SYSTEMS

BUILD = Path("build") / "peers"
_DONE = ".installed"


@dataclass
class Requirements:
    """A file of requirements, read.

    Attributes
    ----------
    name
        Its name without the ending: that of the environment.
    systems
        Adapters that run in it.
    python
        Version of Python, as ``3.11``; empty for any.
    calls
        Options and pinned lines of each call of pip.
    unavailable
        Why a system cannot be had.
    """

    name: str
    systems: list[str] = field(default_factory=list)
    python: str = ""
    calls: list[tuple[list[str], list[str]]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)


def read_requirements(path: Path) -> Requirements:
    """Read a file of requirements."""
    found = Requirements(path.stem)
    for line in path.read_text().splitlines():
        comment = line.removeprefix("#").strip()
        key, _, value = comment.partition(":")
        if not line.strip():
            continue
        if not line.startswith("#"):
            if not found.calls:
                found.calls.append(([], []))
            found.calls[-1][1].append(line.strip())
        elif key == "systems":
            found.systems += [each.strip() for each in value.split(",")]
        elif key == "python":
            found.python = value.strip()
        elif key == "options":
            found.calls.append((value.split(), []))
        elif key == "unavailable":
            system, _, reason = value.strip().partition(":")
            found.unavailable[system.strip()] = reason.strip()
    return found


def all_requirements() -> list[Requirements]:
    """Read every file of requirements."""
    return [read_requirements(path) for path in sorted((FOLDER / "requirements").glob("*.txt"))]


def find_pythons(systems: list[str], given: dict[str, str], *, build: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Find the Python that each system runs by.

    Parameters
    ----------
    systems
        Names of adapters.
    given
        Paths of Pythons by the name of an environment or of a system; they are taken as they are.
    build
        Build environments that are not there yet.

    Returns
    -------
    Paths by system; and reasons by system, for those that can't run.
    """
    pythons, reasons = {}, {}
    built: dict[str, str] = {}
    requirements = all_requirements()
    groups = {system.adapter: system.group for system in SYSTEMS}
    for system in systems:
        needed = next((each for each in requirements if system in each.systems), None)
        unavailable = [each.unavailable[system] for each in requirements if system in each.unavailable]
        if system in given or (needed is not None and needed.name in given):
            pythons[system] = given.get(system) or given[needed.name if needed else ""]
        elif groups.get(system, "file") in ("own", "trivial", "file"):
            pythons[system] = given.get(OWN, sys.executable)
        elif unavailable:
            reasons[system] = unavailable[0]
        elif not (FOLDER / "adapters" / f"{system}.py").exists():
            reasons[system] = "there is no adapter yet"
        elif needed is None:
            reasons[system] = "no file of requirements names it"
        else:
            if needed.name not in built:
                built[needed.name] = build_environment(needed) if build else _find_built(needed)
            if built[needed.name].startswith("/"):
                pythons[system] = built[needed.name]
            else:
                reasons[system] = built[needed.name]
    return pythons, reasons


def build_environment(requirements: Requirements, root: Path = BUILD) -> str:
    """Build an environment, unless it is there: the path of its Python; or a sentence that says what failed."""
    folder = (root / requirements.name).resolve()
    python = folder / "bin" / "python"
    if (folder / _DONE).exists():
        return str(python)
    base = shutil.which(f"python{requirements.python}") if requirements.python else sys.executable
    if base is None:
        return f"needs Python {requirements.python}, which is not here"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    calls = [[base, "-m", "venv", str(folder)]]
    for options, lines in requirements.calls:
        if lines:
            calls.append([str(python), "-m", "pip", "install", "--quiet", *options, *lines])
    for call in calls:
        print(" ".join(call[:6]), "...", flush=True)
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
            return f"could not be installed: {said[0] if said else call}"
    (folder / _DONE).touch()
    return str(python)


def _find_built(requirements: Requirements, root: Path = BUILD) -> str:
    folder = (root / requirements.name).resolve()
    if (folder / _DONE).exists():
        return str(folder / "bin" / "python")
    return f"its environment {requirements.name} has not been built (make peers builds it)"
