"""Annotations in atlases: the same in memory, zarr and h5ad, whoever makes them, killed or not; old plans go on."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import CELLS, AtlasRecipe, stop_after, tree, write_zarr

from causcell.atlas.executors import Dask, Processes
from causcell.atlas.journal import Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.plan import Plan
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError, CausCellWarning, DataError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

OWN = ["source_cell", "intervention", "draw"]


@pytest.fixture(scope="module")
def annotated(cells):
    """The cells of `recipe` with columns of many kinds, coordinates, and gene symbols."""
    few, row = cells[:CELLS].copy(), np.arange(CELLS)
    missing = row % 7 == 0
    few.obs["sample"] = pd.Categorical(
        np.where(missing, None, np.array(["s2", "s1", "s3"])[row % 3]), ["s3", "s2", "s1"]
    )
    few.obs["hour"] = pd.Categorical(row % 4, ordered=True)
    few.obs["barcode"] = [f"bc {i}" for i in row]
    few.obs["note"] = pd.array(np.where(missing, None, few.obs["barcode"]), dtype="string")
    few.obs["reads"] = pd.array(np.where(missing, None, row), dtype="Int64")
    few.obs["doublet"] = pd.array(np.where(missing, None, row % 2 == 0), dtype="boolean")
    few.obs["score"] = np.where(missing, np.nan, row).astype(np.float32)
    few.obsm["spatial"] = np.random.default_rng(0).normal(size=(CELLS, 2))
    few.obsm["X_umap"] = np.zeros((CELLS, 2))
    few.var["symbol"] = [f"symbol {name}" for name in few.var_names]
    return few


@pytest.fixture(scope="module")
def path(annotated, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotated") / "cells.h5ad"
    with anndata.settings.override(allow_write_nullable_strings=True):
        annotated.write_h5ad(path, convert_strings_to_categoricals=False)
    return path


@pytest.fixture(scope="module")
def noted(recipe, path):
    """An atlas of eight shards that keeps what travels by default."""
    return replace(recipe, cells=path)


@pytest.fixture(scope="module")
def atlas(noted, tmp_path_factory):
    path = tmp_path_factory.mktemp("noted") / "atlas.zarr"
    noted.write(path)
    return path


def dashed(values):
    return ["-" if pd.isna(value) else value for value in values]


def in_memory(noted, annotated, **changes):
    options = {name: value for name, value in noted.options.items() if "size" not in name and name != "layout"}
    return noted.generator.counterfactual(annotated, **{**options, **changes})


def test_an_atlas_keeps_what_a_result_in_memory_has(noted, annotated, atlas):
    found, expected = anndata.read_zarr(atlas), in_memory(noted, annotated)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    assert set(found.obsm) == set(expected.obsm) == {"spatial"}
    np.testing.assert_array_equal(found.obsm["spatial"], np.repeat(annotated.obsm["spatial"], 3, axis=0))
    cells = annotated.obs.loc[found.obs["source_cell"]]
    for name in ("sample", "hour", "barcode", "note", "reads", "doublet", "score"):
        assert dashed(found.obs[name]) == dashed(cells[name])
    assert found.obs["sample"].cat.categories.tolist() == ["s3", "s2", "s1"]
    assert found.obs["hour"].cat.ordered
    assert found.var["symbol"].tolist() == [f"symbol {name}" for name in found.var_names]
    assert found.obs.columns[:3].tolist() == OWN
    assert verify_atlas(atlas).sound


def test_interventions_have_the_order_of_the_plan_everywhere(noted, annotated, atlas, tmp_path):
    """It is that of ``do``, not of the alphabet."""
    do = [{"stim": "ctrl"}, {}, {"stim": "IFN"}]
    noted.write(tmp_path / "atlas.h5ad", do=do)
    noted.write(tmp_path / "atlas.zarr", do=do)
    written = (anndata.read_h5ad(tmp_path / "atlas.h5ad"), anndata.read_zarr(tmp_path / "atlas.zarr"))
    for result in (in_memory(noted, annotated, do=do), *written):
        assert result.obs["intervention"].cat.categories.tolist() == ["stim=ctrl", "factual", "stim=IFN"]
        assert result.uns["log1p"] == {"base": None}
        assert result.uns["causcell"]["X"].startswith("expression of a sampled cell, natural logarithm of 1 + counts")
    h5ad, zarr = written
    np.testing.assert_array_equal(h5ad.obsm["spatial"], zarr.obsm["spatial"])
    assert h5ad.obs["reads"].equals(zarr.obs["reads"])
    assert dashed(h5ad.obs["note"]) == dashed(zarr.obs["note"])


@pytest.mark.parametrize("store", ["embeddings", "effects"])
def test_what_is_no_log_expression_does_not_say_so(noted, annotated, store):
    result = in_memory(noted, annotated, do=[{"stim": "IFN"}], store=store)
    assert "log1p" not in result.uns
    assert ("nothing" if store == "embeddings" else "less that of the factual cell") in result.uns["causcell"]["X"]
    assert "spatial" in result.obsm


def test_scanpy_takes_the_scale_from_uns(noted, annotated):
    import scanpy

    result = in_memory(noted, annotated, do=[{}, {"stim": "IFN"}])
    scanpy.tl.rank_genes_groups(result, "intervention", method="t-test")
    assert "stim=IFN" in result.uns["rank_genes_groups"]["names"].dtype.names


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_workers_write_the_same_bytes(noted, atlas, tmp_path, executor, request):
    made_by = Processes(2) if executor == "processes" else Dask(request.getfixturevalue("cluster").scheduler_address)
    noted.write(tmp_path / "atlas.zarr", executor=made_by)
    assert tree(tmp_path / "atlas.zarr") == tree(atlas)


def test_an_interrupted_atlas_goes_on_to_the_same_bytes(noted, atlas, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 3, KeyboardInterrupt())
        noted.write(tmp_path / "atlas.zarr")
    assert 0 < noted.write(tmp_path / "atlas.zarr").made < 3 * CELLS
    assert tree(tmp_path / "atlas.zarr") == tree(atlas)


@pytest.mark.parametrize("name", ["obsm/spatial/c/1/0", "obs/sample/codes/c/1", "obs/reads/mask/c/1"])
def test_damaged_annotations_are_found_and_made_again(noted, atlas, tmp_path, name):
    import shutil

    copy = shutil.copytree(atlas, tmp_path / "atlas.zarr")
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    assert verify_atlas(copy).damaged == {1: (name,)}
    noted.write(copy)
    assert tree(copy) == tree(atlas)
    (copy / name).unlink()
    noted.write(copy)
    assert tree(copy) == tree(atlas)


def test_what_is_materialised_keeps_what_the_embeddings_keep(noted, atlas, tmp_path):
    """Bit for bit what expression would have been stored with."""
    noted.write(tmp_path / "embeddings.zarr", store="embeddings")
    sizes = {name: size for name, size in noted.options.items() if "size" in name or name == "layout"}
    plan, _ = materialize_atlas(noted.generator.model, tmp_path / "embeddings.zarr", tmp_path / "atlas.zarr", **sizes)
    assert plan.digest == Journal(atlas).require_plan().digest
    assert tree(tmp_path / "atlas.zarr") == tree(atlas)


# -- plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_kept(noted, recipe):
    plan = noted.plan()
    assert plan.annotations.names()["obsm"] == ["spatial"]
    assert plan.annotations.names()["var"] == ["symbol"]
    assert "obs 'sample', 'hour'" in str(plan)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert "annotations" not in recipe.plan().model_dump(mode="json")  # as in plans of earlier versions
    assert noted.plan(keep_obs="none", keep_obsm="none").annotations.names() == {
        "obs": [],
        "obsm": [],
        "var": ["symbol"],
    }


def test_other_annotations_are_another_plan(noted, annotated, atlas):
    for changes in ({"keep_obs": ["sample"]}, {"keep_obsm": "none"}, {"keep_obsm": ["spatial", "X_umap"]}):
        with pytest.raises(OutputExistsError, match=r"(obs|obsm) [a-zX_]+ .*asked for"):
            noted.write(atlas, **changes)
    changed = annotated.copy()
    changed.obs["score"] += 1
    with pytest.raises(OutputExistsError, match="annotations values"):
        noted.write(atlas, cells=changed)
    changed.obs["sample"] = changed.obs["sample"].cat.rename_categories({"s1": "other"})
    with pytest.raises(OutputExistsError, match="obs sample"):
        noted.write(atlas, cells=changed)


def test_an_atlas_begun_without_annotations_goes_on_without(noted, tmp_path, monkeypatch):
    """As one of an earlier version does: its plan has its digest, and the default adds nothing under way."""
    none = {"keep_obs": "none", "keep_obsm": "none"}
    no_table = lambda parts, genes: (pd.DataFrame(index=genes), [])  # noqa: E731
    monkeypatch.setattr("causcell.cells.annotations.read_gene_table", no_table)
    noted.write(tmp_path / "whole.zarr", **none)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 3, KeyboardInterrupt())
        noted.write(tmp_path / "atlas.zarr", **none)
    monkeypatch.undo()
    with pytest.warns(CausCellWarning, match=r"begun with fewer annotations of its cells \(none\)"):
        assert noted.write(tmp_path / "atlas.zarr").made
    assert tree(tmp_path / "atlas.zarr") == tree(tmp_path / "whole.zarr")
    assert noted.write(tmp_path / "atlas.zarr").made == 0
    with pytest.raises(OutputExistsError, match=r"(obs|obsm) [a-zX_]+ .*asked for"):
        noted.write(tmp_path / "atlas.zarr", keep_obs=["sample"])


def test_a_column_that_came_later_does_not_stop_an_atlas(noted, annotated, atlas):
    """An atlas goes on with what it keeps, where nothing else was chosen."""
    more = annotated.copy()
    more.obs["cluster"] = pd.Categorical(["c1", "c2"] * (CELLS // 2))
    with pytest.warns(CausCellWarning, match="goes on with these"):
        assert noted.write(atlas, cells=more).made == 0


def test_workers_refuse_annotations_that_changed_since_the_plan(noted, path, annotated, tmp_path):
    """Codes of other labels would stand beside the labels that were written ahead."""
    copy = tmp_path / "cells.h5ad"
    annotated.write_h5ad(copy)
    recipe = AtlasRecipe(noted.generator, copy, noted.options)
    with recipe.open(tmp_path / "atlas.zarr") as opened:
        task = opened.maker.task
        changed = annotated.copy()
        changed.obs["sample"] = changed.obs["sample"].cat.add_categories("s0")
        copy.unlink()
        changed.write_h5ad(copy)
        with pytest.raises(DataError, match=r"obs\['sample'\] changed since"):
            task.open()


def test_planning_alone_looks_at_no_atlas(noted, tmp_path, monkeypatch):
    (tmp_path / "atlas.zarr" / ".causcell").mkdir(parents=True)
    (tmp_path / "atlas.zarr" / ".causcell" / "plan.json").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert noted.plan().annotations is not None
    with pytest.raises(AtlasError, match="can't be read"):
        noted.write(tmp_path / "atlas.zarr")


# -- several files -----------------------------------------------------------------------------------------------------


def test_several_files_in_one_atlas(noted, annotated, tmp_path):
    """Labels are joined, and shards that hold cells of both files have them."""
    first, second = annotated[:50].copy(), annotated[50:].copy()
    second.obs["sample"] = second.obs["sample"].cat.rename_categories({"s3": "s9"})
    second.obs["only"] = np.arange(len(second))
    first.write_h5ad(tmp_path / "a.h5ad")
    write_zarr(second, tmp_path / "b.zarr")
    files = {"a": str(tmp_path / "a.h5ad"), "b": str(tmp_path / "b.zarr")}
    noted.write(tmp_path / "atlas.zarr", cells=files)
    noted.write(tmp_path / "again.zarr", cells=files, executor=Processes(2))
    found = anndata.read_zarr(tmp_path / "atlas.zarr")
    assert tree(tmp_path / "atlas.zarr") == tree(tmp_path / "again.zarr")
    assert found.obs["sample"].cat.categories.tolist() == ["s3", "s2", "s1", "s9"]
    assert found.obs["only"].isna().sum() == 150
    expected = [*first.obs["sample"], *second.obs["sample"]]
    assert dashed(found.obs["sample"][::3]) == dashed(expected)
