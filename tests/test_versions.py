"""Lower bounds of dependencies are those that the lowest environment installs, and known bad versions are excluded."""

import importlib.util
import re
import subprocess
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: list(map(Requirement, listed)) for name, listed in PROJECT["optional-dependencies"].items()}
DIRECT = {
    requirement.name: requirement
    for requirement in [
        *map(Requirement, PROJECT["dependencies"]),
        *(each for name, listed in EXTRAS.items() if name not in ("dev", "docs") for each in listed),
    ]
    if requirement.name != "causcell"
}
WITHOUT_KNOWN_HOLES = {
    "anndata": "0.12.2",
    "distributed": "2026.1.1",
    "numcodecs": "0.16.6",
    "onnx": "1.21",
    "onnxruntime": "1.25",
    "onnxruntime-gpu": "1.25",
    "torch": "2.10",
    "tqdm": "4.66.3",
    "typer": "0.16",
    "zarr": "3.1",
}
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}


def lowest_environment() -> dict[str, str]:
    """The versions that `.ci/versions` installs at the lower end, by package."""
    spec = importlib.util.spec_from_file_location("floors", ROOT / ".ci/floors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.floors(ROOT / "pyproject.toml")


def bounds(requirement: Requirement, *operators: str) -> list[str]:
    return [each.version for each in requirement.specifier if each.operator in operators]


def test_the_lowest_environment_has_every_lower_bound() -> None:
    assert lowest_environment() == {name: bounds(requirement, ">=")[0] for name, requirement in DIRECT.items()}


@pytest.mark.parametrize("name", DIRECT)
def test_a_dependency_has_one_lower_bound_and_no_upper_one(name: str) -> None:
    """Upper bounds would keep people from mended versions."""
    assert len(bounds(DIRECT[name], ">=")) == 1
    assert bounds(DIRECT[name], "<", "<=", "==", "~=", "===") == []
    assert all(DIRECT[name].specifier.contains(bound) for bound in bounds(DIRECT[name], ">="))


@pytest.mark.parametrize("name", WITHOUT_KNOWN_HOLES)
def test_lower_bounds_are_without_known_holes(name: str) -> None:
    assert Version(bounds(DIRECT[name], ">=")[0]) >= Version(WITHOUT_KNOWN_HOLES[name])


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_versions_are_never_installed(name: str) -> None:
    for version in MALICIOUS[name]:
        assert not DIRECT[name].specifier.contains(version)
        assert f"{name}=={version}" not in (ROOT / "constraints.txt").read_text().splitlines()


def test_what_ci_runs_is_within_the_bounds() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for name, requirement in DIRECT.items():
        if name != "onnxruntime-gpu":  # never beside onnxruntime
            assert requirement.specifier.contains(pins[canonicalize_name(name)]), name


def test_one_extra_has_the_runtime_for_processors_and_another_the_one_for_gpus() -> None:
    """Both lay down the same package: neither comes with the other, nor with the client alone."""
    runtimes = {
        name: {each.name for each in listed} & {"onnxruntime", "onnxruntime-gpu"} for name, listed in EXTRAS.items()
    }
    assert {name: found for name, found in runtimes.items() if found} == {
        "cpu": {"onnxruntime"},
        "gpu": {"onnxruntime-gpu"},
    }
    assert not {"onnxruntime", "onnxruntime-gpu"} & {Requirement(each).name for each in PROJECT["dependencies"]}
    extras = {"cloud", "cpu", "dask", "evaluate", "export", "hub", "plot", "seurat"}
    assert [each.extras for each in EXTRAS["all"]] == [extras]


def test_the_installed_lightning_is_none_of_them() -> None:
    with_training = pytest.importorskip("lightning", reason="takes causcell[train]")
    assert metadata.version(with_training.__name__) not in MALICIOUS["lightning"]


def test_the_files_that_versions_are_tried_with_are_there() -> None:
    """Names that bash expands, in `.ci/versions`."""
    lists = re.findall(r"(?ms)^    (?:chosen|trained)=\((.*?)\)$", (ROOT / ".ci/versions").read_text())
    assert len(lists) == 2
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {' '.join(' '.join(lists).split())}"], capture_output=True, text=True
    )
    names = shown.stdout.split()
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []
