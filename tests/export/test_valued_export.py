"""A model whose concepts have values, trained, exported and asked: the whole way on real graphs."""

import json
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from strangers import seal
from valued_cells import valued_cells, valued_config

from causcell import Generator
from causcell.errors import CausCellError, CorruptFileError
from causcell.repository.manifest import PLAIN_SCHEMA_VERSION, SCHEMA_VERSION, Manifest
from causcell_export import export
from causcell_training import fit

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")  # 240 cells have few combinations


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    return valued_cells()


@pytest.fixture(scope="module")
def models(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("valued")
    return export(
        fit(adata, folder / "run", config=valued_config(folder, **{"optimisation.epochs": 2})), folder / "models"
    )


def test_earlier_clients_are_told_to_be_updated(models: Path) -> None:
    assert json.loads((models / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION > PLAIN_SCHEMA_VERSION


@pytest.mark.parametrize(
    ("do", "beyond"),
    [
        ({"age": 33.25}, False),
        ({"age": 99}, True),
        ({"dose": 5}, False),
        ({"pert": "A+B"}, False),
        ({"pert": "C+A"}, True),
        ({"drug": "NEW"}, True),
    ],
)
def test_values_are_set_on_an_exported_model(
    models: Path, adata: anndata.AnnData, do: dict[str, Any], beyond: bool
) -> None:
    with Generator.open(models) as generator:
        cells = adata[:30].copy()
        plain = generator.reconstruct(cells, seed=0)
        changed = generator.counterfactual(cells, do=do, seed=0)
        name = next(iter(do))
        expected = "A+C" if name == "pert" and beyond else do[name]
        assert (changed.obs[name] == expected).all()
        assert (changed.obs["extrapolated"] == beyond).all()
        assert np.isfinite(changed.X.toarray() if hasattr(changed.X, "toarray") else changed.X).all()
        assert len(plain) == len(changed)


def test_concepts_that_no_edge_reaches_keep_their_embeddings_bit_for_bit(models: Path, adata: anndata.AnnData) -> None:
    with Generator.open(models) as generator:
        cells = adata[:30].copy()
        factual = generator.counterfactual(cells, do={}, seed=0, store="embeddings")
        changed = generator.counterfactual(cells, do={"age": 50}, seed=0, store="embeddings")
        m, age = generator.schema.size, generator.schema.index("age")
        key = next(iter(changed.obsm))
        before, after = (np.asarray(each.obsm[key]).reshape(30, m, -1) for each in (factual, changed))
        np.testing.assert_array_equal(np.delete(before, age, axis=1), np.delete(after, age, axis=1))
        assert (before[:, age] != after[:, age]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda fields: fields["graphs"].pop("prior"), "graphs lacks 'prior'"),
        (lambda fields: fields["concepts"][3]["value"].update(width=2), "contradicts itself"),
        (lambda fields: fields["concepts"][3].pop("value"), "needs values of its kind"),
        (lambda fields: fields["graphs"]["prior"]["inputs"]["values"].update(shape=[3]), "'values'"),
        (lambda fields: fields["graphs"]["scm"]["outputs"].pop("value_age"), "'value_age'"),
    ],
)
def test_manifest_whose_values_contradict_its_graphs_is_refused(models: Path, edit, told: str) -> None:
    fields = json.loads((models / "manifest.json").read_text())
    edit(fields)
    with pytest.raises(CorruptFileError, match=re.escape(told)) as error:
        Manifest.from_json(json.dumps(seal(fields)), "manifest.json")
    assert isinstance(error.value, CausCellError)
