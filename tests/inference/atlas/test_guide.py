"""Every Python recipe of docs/atlas.md runs, as a script of its own, and makes the same atlas."""

import ast
import re
import subprocess
import sys

import pytest
from atlases import environment, tree
from paths import ROOT

from causcell.atlas.verify import verify_atlas
from causcell.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

GUIDE = (ROOT / "docs" / "atlas.md").read_text()
RECIPES = {
    section.partition("\n")[0]: recipe
    for section in re.split(r"(?m)^## ", GUIDE)
    for recipe in re.findall(r"(?ms)^```python\n(.*?)^```", section)
}
"""Recipes by the section that they stand in."""

STAND_INS = {
    "SLURM": (
        "dask_jobqueue.py",
        """
        from contextlib import contextmanager
        from types import SimpleNamespace

        @contextmanager
        def SLURMCluster(**options):
            yield SimpleNamespace(scheduler_address="tcp://scheduler:8786", scale=lambda jobs: None)
        """,
    ),
    "Kubernetes": (
        "dask_kubernetes/operator.py",
        """
        from contextlib import contextmanager
        from types import SimpleNamespace

        def make_cluster_spec(name, image, n_workers):
            parts = {part: {"spec": {"containers": [{"args": ["start"]}]}} for part in ("worker", "scheduler")}
            return {"spec": parts}

        @contextmanager
        def KubeCluster(custom_cluster_spec):
            worker = custom_cluster_spec["spec"]["worker"]["spec"]
            assert worker["containers"][0]["args"] == ["start", "--nthreads", "1"]
            yield SimpleNamespace(scheduler_address="tcp://scheduler:8786")
        """,
    ),
}
"""What stands in for clusters that there are none of here: the module that a recipe imports, by its section."""


@pytest.fixture(scope="module")
def expected(repository, recipe, tmp_path_factory):
    """Files of the atlas as the command makes it, in one process."""
    out = tmp_path_factory.mktemp("expected") / "atlas.zarr"
    words = ["generate", recipe.cells, "--models", repository, "--grid", "stim", "--out", out, "--no-progress"]
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, words)])
    assert exit_.value.code in (None, 0)
    return tree(out)


def test_the_guide_has_a_recipe_for_each_place():
    assert list(RECIPES) == [
        "One machine",
        "A Dask cluster that runs already",
        "SLURM",
        "Kubernetes",
        "An executor of your own",
    ]
    assert GUIDE.count("```python") == len(RECIPES)
    assert "subprocess" not in GUIDE


@pytest.mark.parametrize("section", RECIPES)
def test_a_recipe_makes_the_atlas(section, repository, recipe, expected, cluster, tmp_path):
    """As it stands, but for the address of the scheduler and the volume of the pods."""
    text = RECIPES[section].replace("/data/", "")
    (tmp_path / "recipe.py").write_text(text.replace("tcp://scheduler:8786", cluster.scheduler_address))
    (tmp_path / "cells.h5ad").symlink_to(recipe.cells)
    (tmp_path / "models").symlink_to(repository)
    if section in STAND_INS:
        module, source = STAND_INS[section]
        (tmp_path / module).parent.mkdir(exist_ok=True)
        lines = (line.removeprefix(" " * 8) for line in source.splitlines())
        (tmp_path / module).write_text("\n".join(lines).replace("tcp://scheduler:8786", cluster.scheduler_address))
    run = subprocess.run(
        [sys.executable, "recipe.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    assert verify_atlas(tmp_path / "atlas.zarr").sound
    assert tree(tmp_path / "atlas.zarr") == expected


@pytest.mark.parametrize("section", STAND_INS)
def test_what_is_not_run_as_it_stands_is_said_to_be_so(section):
    """In the text before the recipe."""
    text = GUIDE[GUIDE.index(f"\n## {section}\n") :]
    before = " ".join(text.partition("```python")[0].split())
    assert f"has not been run on {section}:" in before


def test_recipes_that_start_processes_say_where_a_script_begins():
    """A process that is spawned imports the script: without the line it would run it again."""
    for recipe in RECIPES.values():
        if "Processes(" in recipe or "ProcessPoolExecutor(" in recipe:
            last = ast.parse(recipe).body[-1]
            assert isinstance(last, ast.If)
            assert ast.unparse(last.test) == "__name__ == '__main__'"
