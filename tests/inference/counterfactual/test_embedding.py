"""Concept embeddings and predicted labels of cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
from atlases import write_zarr
from results import TOLERANCE
from scipy import sparse
from simulation import CONCEPTS

from causcell.errors import CausCellWarning, ConfigurationError
from causcell.repository.manifest import logits_name


@pytest.fixture(scope="module")
def embedded(generator, few):
    return generator.embed(few)


def test_embeddings_by_concept_and_side_by_side(embedded, few):
    blocks = [embedded.obsm[f"X_causcell_{name}"] for name in (*CONCEPTS, "unexplained")]
    assert set(embedded.obsm) == {
        "X_causcell",
        "X_causcell_exogenous",
        *(f"X_causcell_{name}" for name in (*CONCEPTS, "unexplained")),
    }
    assert all(block.shape == (96, 8) and block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(embedded.obsm["X_causcell"], np.concatenate(blocks, axis=1))
    assert embedded.obs_names.tolist() == few.obs_names.tolist()
    assert embedded.X is None


def test_embeddings_follow_the_graph(embedded, generator):
    """z = A^T z + eps; 1e-5 for sums of a few float32 numbers."""
    z, eps = (embedded.obsm[f"X_causcell{kind}"].reshape(96, 5, 8) for kind in ("", "_exogenous"))
    np.testing.assert_allclose(z, np.einsum("ij,bik->bjk", generator.schema.adjacency(), z) + eps, atol=1e-5)
    assert (z != eps).any()


def test_obs_is_kept_and_predictions_are_added(embedded, generator, few):
    pd.testing.assert_frame_equal(embedded.obs[list(CONCEPTS)], few.obs[list(CONCEPTS)])
    assert embedded.obs.columns.tolist() == [*CONCEPTS, *(f"{concept}_predicted" for concept in CONCEPTS)]
    eps = embedded.obsm["X_causcell_exogenous"].reshape(96, 5, 8)
    outputs = generator.engine.run(
        "scm", {"exogenous": eps, "forced": eps, "mask": np.zeros((96, 5), dtype=np.float32)}
    )
    for concept in generator.schema.concepts:
        predicted = np.array(concept.labels)[outputs[logits_name(concept.name)].argmax(axis=1)]
        assert embedded.obs[f"{concept.name}_predicted"].tolist() == predicted.tolist()


def test_embedding_options(generator, few, embedded):
    """1e-4: the cells stand in another batch."""
    result = generator.embed(few, where="stim == 'IFN'", key_added="X_other")
    chosen = (few.obs["stim"] == "IFN").to_numpy()
    assert result.obs_names.tolist() == few.obs_names[chosen].tolist()
    np.testing.assert_allclose(result.obsm["X_other"], embedded.obsm["X_causcell"][chosen], atol=TOLERANCE)
    assert "X_other_stim" in result.obsm


def test_embedding_provenance(embedded, generator):
    assert embedded.uns["causcell"]["model_digest"] == generator.manifest.digest


def test_embeddings_can_be_saved(embedded, tmp_path):
    embedded.write_h5ad(tmp_path / "embedded.h5ad")
    read = anndata.read_h5ad(tmp_path / "embedded.h5ad")
    np.testing.assert_array_equal(read.obsm["X_causcell"], embedded.obsm["X_causcell"])


# -- what belongs to the cells -----------------------------------------------------------------------------------------


@pytest.fixture
def analysed(few):
    """Cells after an analysis: coordinates, components, a graph of neighbours, symbols, colours."""
    analysed = few.copy()
    rng = np.random.default_rng(0)
    analysed.obs["day"] = pd.date_range("2026", periods=len(few))
    analysed.obsm["spatial"] = rng.normal(size=(len(few), 2))
    analysed.obsm["table"] = pd.DataFrame({"a": np.arange(len(few))}, index=few.obs_names)
    analysed.obsp["connectivities"] = sparse.random(len(few), len(few), 0.1, format="csr", random_state=0)
    analysed.var["symbol"] = [f"S{name}" for name in few.var_names]
    analysed.varm["PCs"] = rng.normal(size=(few.n_vars, 3))
    analysed.uns["stim_colors"] = np.array(["#111111", "#222222"])
    analysed.layers["raw"] = analysed.X.copy()
    return analysed


@pytest.mark.parametrize("form", ["memory", "h5ad", "zarr"])
def test_all_that_belongs_to_cells_but_their_values_is_kept(generator, analysed, tmp_path, form):
    if form != "memory":
        del analysed.obs["day"]
        analysed.obs["text"] = [f"cell {i}" for i in range(len(analysed))]
    source = analysed
    if form == "h5ad":
        source = tmp_path / "cells.h5ad"
        analysed.write_h5ad(source)
    elif form == "zarr":
        source = tmp_path / "cells.zarr"
        write_zarr(analysed, source)
    embedded = generator.embed(source, where="stim == 'IFN'")
    expected = analysed[(analysed.obs["stim"] == "IFN").to_numpy()]
    pd.testing.assert_frame_equal(embedded.obs[list(expected.obs)], analysed.obs[analysed.obs["stim"] == "IFN"])
    np.testing.assert_array_equal(embedded.obsm["spatial"], expected.obsm["spatial"])
    assert embedded.obsm["table"]["a"].tolist() == expected.obsm["table"]["a"].tolist()
    assert (embedded.obsp["connectivities"] != expected.obsp["connectivities"]).nnz == 0
    pd.testing.assert_frame_equal(embedded.var, analysed.var)
    np.testing.assert_array_equal(embedded.varm["PCs"], expected.varm["PCs"])
    assert embedded.uns["stim_colors"].tolist() == ["#111111", "#222222"]
    assert embedded.X is None
    assert not embedded.layers


def test_embeddings_are_written_into_the_cells(generator, few, embedded):
    """As functions of scanpy do; all else is as it was."""
    given = few.copy()
    assert generator.embed(given, inplace=True) is None
    assert set(given.obsm) == set(embedded.obsm)
    np.testing.assert_array_equal(given.obsm["X_causcell"], embedded.obsm["X_causcell"])
    pd.testing.assert_frame_equal(given.obs, embedded.obs)
    assert (given.X != few.X).nnz == 0
    assert given.uns["causcell"]["model_digest"] == generator.manifest.digest
    generator.embed(given, inplace=True, key_added="X_again")  # the model's own are replaced without a word
    assert "X_again_stim" in given.obsm


def test_what_is_replaced_is_told(generator, few):
    given = few.copy()
    given.obs["stim_predicted"], given.obsm["X_causcell"], given.uns["causcell"] = "x", np.ones((96, 2)), {"store": "x"}
    told = r"obs\['stim_predicted'\], obsm\['X_causcell'\], uns\['causcell'\] already"
    for inplace in (False, True):
        with pytest.warns(CausCellWarning, match=told):
            generator.embed(given, inplace=inplace)


@pytest.mark.parametrize("options", [{"where": "stim == 'IFN'"}, {"path": True}])
def test_embedding_in_place_takes_cells_in_memory_and_all_of_them(generator, few, tmp_path, options):
    source = few
    if options.pop("path", False):
        source = tmp_path / "cells.h5ad"
    with pytest.raises(ConfigurationError, match="give one in memory without where="):
        generator.embed(source, inplace=True, **options)


def test_of_several_files_obs_and_common_elements_are_kept(generator, few):
    first, second = few[:40].copy(), few[40:].copy()
    for part in (first, second):
        part.obsm["spatial"] = np.full((len(part), 2), len(part))
    first.obsm["X_umap"] = np.ones((40, 2))
    first.obs["sample"], second.obs["sample"] = pd.Categorical(["s2"] * 40), pd.Categorical(["s1"] * 56)
    with pytest.warns(CausCellWarning, match="obsm has 'X_umap' not in all files"):
        embedded = generator.embed({"a": first, "b": second})
    assert embedded.obsm["spatial"][:, 0].tolist() == [40] * 40 + [56] * 56
    assert embedded.obs["sample"].cat.categories.tolist() == ["s2", "s1"]
    assert "X_umap" not in embedded.obsm
