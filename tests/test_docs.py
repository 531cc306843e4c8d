"""Pages of docs/ and the README: every Python example runs, every link leads somewhere, generated pages are whole.

Cells of notebooks (``{code-cell}``) run when the site is built (``make docs``, of CI) and not here a second time.
"""

import importlib.util
import re
import tomllib
import warnings
from pathlib import Path
from types import ModuleType

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import run_example
from paths import MODEL_REPOSITORY, ROOT
from simulation import simulated_cells

from causcell.errors import CausCellWarning
from causcell.generator import Generator
from causcell_training import Run
from causcell_training.settings import describe_settings

pytest.importorskip("scanpy", reason="takes causcell[evaluate]")

DOCS = ROOT / "docs"
MADE = {"_build", "generated"}
PAGES = [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if not MADE & set(path.parts))]
NOT_RUN = {
    "a bucket": "tests/inference/atlas/test_object_storage.py writes to a server of its own",
    "a hub": "tests/inference/repository/test_hub.py has one of its own",
}
"""Why an example with the mark ``<!-- not run: KEY -->`` before it is not run here."""
GUIDES = {
    "annotations.md": "tests/inference/test_annotations_guide.py",
    "atlas.md": "tests/inference/atlas/test_guide.py",
    "effects.md": "tests/inference/effects/test_guide.py",
}
"""Pages whose examples have tests of their own, which look at what they find."""
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)

SHORTENED = """
import causcell_training.fitting
from causcell_training.config import load_config

_fit = causcell_training.fitting.fit


def _short(*arguments, **options):
    few = load_config(overrides={"optimisation.epochs": 2, "optimisation.validate_every": 1})
    return _fit(*arguments, config=few, **options)


causcell_training.fitting.fit = _short
"""
"""What goes before an example that trains: two epochs instead of up to 200."""


def examples() -> list[tuple[str, str]]:
    """Page and code of each example that is run here."""
    return [
        (page.name, found["code"])
        for page in PAGES
        if page.name not in GUIDES
        for found in BLOCK.finditer(page.read_text())
        if found["why"] is None
    ]


@pytest.fixture(scope="module")
def material(cells: anndata.AnnData, run: Run, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples name: cells, new cells, a run, a model, predictions of another method with their split."""
    folder = tmp_path_factory.mktemp("examples")
    cells.write_h5ad(folder / "cells.h5ad")
    others = simulated_cells(96, seed=1)
    others.obs_names = [f"new_{name}" for name in others.obs_names]
    others.write_h5ad(folder / "new_donors.h5ad")
    with Generator.open(repository, threads=1) as generator, warnings.catch_warnings():
        warnings.simplefilter("ignore", CausCellWarning)  # of a concept that a short training can't tell
        predicted = generator.counterfactual(cells, [{}, {"stim": "IFN"}, {"stim": "ctrl"}], preset="mean")
    predicted.write_h5ad(folder / "scgen.h5ad")
    parts = np.where(np.arange(cells.n_obs) % 2, "train", "test")
    pd.DataFrame({"cell": cells.obs_names, "split": parts}).to_csv(folder / "split.csv", index=False)
    for name, target in (("run", run.path), ("models", repository), ("model_repository", MODEL_REPOSITORY)):
        (folder / name).symlink_to(target)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), examples(), ids=lambda value: value if value.endswith(".md") else "")
def test_an_example_runs_as_it_stands(page: str, code: str, material: Path, tmp_path: Path) -> None:
    """As a script of its own, but for trainings, which are short."""
    made = {"run", "models"} if "export(" in code else set()
    for path in material.iterdir():
        if path.name not in made:
            (tmp_path / path.name).symlink_to(path)
    run_example(tmp_path, (SHORTENED if "fit(" in code else "") + code)


def test_every_example_is_accounted_for() -> None:
    """Run here, run by the page's own test, or marked with a reason that is known."""
    for page in PAGES:
        text = page.read_text()
        found = list(BLOCK.finditer(text))
        assert len(found) == text.count("```python"), page
        assert {each["why"] for each in found} - {None} <= set(NOT_RUN), page
    for page, test in GUIDES.items():
        assert f"docs/{page}" in (ROOT / test).read_text()
    assert all((ROOT / reason.split()[0]).is_file() for reason in NOT_RUN.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_has_cells_is_a_notebook_that_the_site_runs(page: Path) -> None:
    """The header names a kernel, without which the site would show cells and run none; and all of it is Python."""
    text = page.read_text()
    if "```{code-cell}" in text:
        header = text.split("---\n")[1]
        assert "format_name: myst" in header and "name: python3" in header
        for cell in re.findall(r"```\{code-cell\} ipython3\n(?:.*\n)*?```", text):
            source = re.sub(r"^(```.*|:tags:.*|%config .*)\n?", "", cell, flags=re.MULTILINE)
            compile(source, page.name, "exec")
        assert text.count("```{code-cell} ipython3\n") == text.count("```{code-cell}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        target = page.parent / link
        assert target.exists() or "generated/" in link, f"{page.name}: {link}"


def test_links_of_the_readme_are_whole_on_a_package_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (rule,) = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    shown = re.sub(rule["pattern"], rule["replacement"], (ROOT / "README.md").read_text())
    links = re.findall(r"\]\(([^)]+)\)", shown)
    assert len(links) > 15
    assert all(link.startswith("https://") for link in links)
    assert f"]({project['project']['urls']['Source']}/docs/quickstart.md)" in shown


def test_the_readme_is_a_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


# -- generated pages ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The extension of the site that writes pages."""
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "_ext" / "generated_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_stands_in_the_contents(generated: ModuleType) -> None:
    contents = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    listed = {line for block in contents for line in block.splitlines() if line and not line.startswith(":")}
    written = {f"generated/{name}" for name in generated.pages()}
    pages = {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)} - {"index.md"}
    assert {f"{name}.md" for name in listed} == pages | written


def test_the_command_line_is_described_whole(generated: ModuleType) -> None:
    text = generated.command_line()
    for name, command in generated.typer.main.get_command(generated.build_app()).commands.items():
        assert f"\n## {name}\n" in text
        for parameter in (each for each in command.params if not getattr(each, "hidden", False)):
            assert all(f"`{option}`" in text for option in parameter.opts if option.startswith("--"))


def test_settings_are_described_whole(generated: ModuleType) -> None:
    text = generated.settings()
    assert all(f"| `{setting.name}` |" in text for setting in describe_settings())
