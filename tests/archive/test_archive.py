"""Today's code reads what every earlier version wrote, and finds in it what was there then.

Tolerances: embeddings within 1e-5, as machines round sums of 40 genes differently in their last bits; draws within
1e-3 but for one flip between zero and a value in 10,000 (DESIGN 4.4).
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pytest
from exported import export_unmeasured

from causcell import Generator, open_repository
from causcell.cli.main import main
from causcell_training import Run

VERSIONS = sorted(path.name for path in Path(__file__).parent.iterdir() if (path / "expected.json").is_file())
ATLASES = ("expression", "expression16", "embeddings", "effects", "summary")

pytestmark = [
    # the archived cells have another date and place than when the atlas was begun, and some combinations are unseen
    pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning"),
]


@dataclass
class Archive:
    """What one version wrote, and what is to be found in it."""

    folder: Path
    arrays: dict[str, np.ndarray]
    facts: dict

    @property
    def cells(self):
        return anndata.read_h5ad(self.folder / "cells.h5ad")

    def unpack(self, name, place):
        """Unpack an atlas into the folder ``place``."""
        path = place / f"{name}.zarr"
        with zipfile.ZipFile(self.folder / f"{name}.zarr.zip") as packed:
            packed.extractall(path)
        return path

    def obs_agrees(self, name, atlas):
        expected = dict(self.facts["obs"][name])
        assert atlas.obs_names.tolist() == expected.pop("names")
        assert {column: [None if v != v else v for v in atlas.obs[column].tolist()] for column in atlas.obs} == expected


@pytest.fixture(scope="module", params=VERSIONS)
def archive(request):
    folder = Path(__file__).parent / request.param
    with np.load(folder / "expected.npz") as arrays:
        return Archive(folder, dict(arrays), json.loads((folder / "expected.json").read_text()))


@pytest.fixture(scope="module")
def model(archive):
    with Generator.open(archive.folder / "models", threads=1, batch_size=8) as opened:
        yield opened


def command(*words):
    """Run the command line in this process; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code


def assert_draws_agree(found, expected):
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64)) > 1e-3
    assert off.sum() <= np.ceil(off.size / 10_000)


def test_a_version_is_archived():
    assert "0.1.0" in VERSIONS


# -- the run -----------------------------------------------------------------------------------------------------------


def test_run_opens(archive):
    run = Run.load(archive.folder / "run")
    assert list(run.model.preprocessing.genes) == archive.facts["genes"]
    assert run.held_out().n_vars == len(archive.facts["genes"])


def test_run_is_exported_again_as_the_same_model(archive, tmp_path):
    again = export_unmeasured(Run.load(archive.folder / "run"), tmp_path / "models")
    with Generator.open(again, threads=1, batch_size=8) as generator:
        embedded = generator.embed(archive.cells)
        drawn = generator.counterfactual(archive.cells, grid=["cell_type"], solver="draw", seed=7)
    np.testing.assert_allclose(embedded.obsm["X_causcell"], archive.arrays["embedded/X_causcell"], atol=1e-5)
    assert_draws_agree(drawn.X, archive.arrays["expression/X"])


# -- the model repository ----------------------------------------------------------------------------------------------


def test_repository_opens_with_its_digests(archive):
    assert open_repository(archive.folder / "models").manifest.digest == archive.facts["model_digest"]


def test_repository_embeds_as_then(archive, model):
    embedded = model.embed(archive.cells)
    keys = {name.removeprefix("embedded/") for name in archive.arrays if name.startswith("embedded/")}
    assert set(embedded.obsm) == keys
    for key in keys:
        np.testing.assert_allclose(embedded.obsm[key], archive.arrays[f"embedded/{key}"], atol=1e-5)


def test_repository_generates_as_then(archive, model):
    made = model.counterfactual(archive.cells, grid=["cell_type"], solver="draw", seed=7)
    assert_draws_agree(made.X, archive.arrays["expression/X"])
    archive.obs_agrees("expression", made)
    summary = model.counterfactual(archive.cells, {"stim": "IFN"}, solver="draw", seed=7, draws=3, store="summary")
    assert_draws_agree(summary.X, archive.arrays["summary/X"])
    assert_draws_agree(summary.layers["deviation"], archive.arrays["summary/layers/deviation"])


# -- atlases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATLASES)
def test_atlas_is_verified_and_read(archive, name, tmp_path, capsys):
    path = archive.unpack(name, tmp_path)
    assert command("verify", path, "--no-progress") == 0, capsys.readouterr()
    atlas = anndata.read_zarr(path)
    archive.obs_agrees(name, atlas)
    assert atlas.var_names.tolist() == archive.facts["genes"]
    held = {
        key.removeprefix(f"{name}/"): values for key, values in archive.arrays.items() if key.startswith(f"{name}/")
    }
    assert held
    for place, values in held.items():
        element, _, key = place.partition("/")
        found = getattr(atlas, element)[key] if key else atlas.X
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_finished_atlas_is_left_as_it_is(archive, tmp_path):
    """The plan that today's code makes of the same command is the archived one."""
    path = archive.unpack("expression", tmp_path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert generate(archive, path, "expression") == 0
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_unfinished_atlas_is_continued(archive, tmp_path):
    path = archive.unpack("unfinished", tmp_path)
    made = {file: file.read_bytes() for file in path.glob("X/c/**/*") if file.is_file()}
    assert made
    assert not (path / "zarr.json").exists()
    assert command("verify", path, "--no-progress") == 1
    assert generate(archive, path, "unfinished") == 0
    assert command("verify", path, "--no-progress") == 0
    atlas = anndata.read_zarr(path)
    assert_draws_agree(atlas.X, archive.arrays["unfinished/X"])
    archive.obs_agrees("unfinished", atlas)
    assert {file: file.read_bytes() for file in made} == made  # what was there is kept


def test_embeddings_are_materialised_to_the_archived_expression(archive, tmp_path):
    path, out = archive.unpack("embeddings", tmp_path), tmp_path / "materialised.zarr"
    assert command("materialize", path, "--models", archive.folder / "models", "--out", out, "--no-progress") == 0
    atlas = anndata.read_zarr(out)
    assert_draws_agree(atlas.X, archive.arrays["expression/X"])
    archive.obs_agrees("expression", atlas)


def generate(archive, path, name):
    """Run the command that wrote an archived atlas."""
    options = [*archive.facts["options"][name], *archive.facts["layout"]]
    place = ["--models", archive.folder / "models", "--out", path, "--no-progress"]
    return command("generate", archive.folder / "cells.h5ad", *place, *options)
