"""Concept embeddings and predicted labels of cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
from results import TOLERANCE
from simulation import CONCEPTS

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
