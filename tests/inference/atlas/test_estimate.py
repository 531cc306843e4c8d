"""What an atlas will take, and what it will hold, is told before it is written."""

import pytest
from atlases import AtlasRecipe

from causcell.atlas.estimate import count_unseen_rows
from causcell.atlas.journal import FOLDER
from causcell.counterfactual.request import make_request
from causcell.errors import OutputFullError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def larger(generator, cells):
    """An atlas recipe of 200 cells in memory, written as one shard."""
    return AtlasRecipe(generator, cells[:200].copy(), {"do": {"stim": "IFN"}, "grid": ["cell_type"]})


# -- bytes and time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["expression", "embeddings", "effects"])
def test_the_size_on_disk_is_told_beforehand(larger, tmp_path, store):
    """Within a tenth, from a few batches; most of what is left is file by file."""
    forecast = larger.plan(store=store, forecast=True).forecast
    summary = larger.write(tmp_path / "atlas.zarr", store=store)
    assert summary.bytes == pytest.approx(forecast.bytes, rel=0.1)
    assert forecast.rows_per_second > 0


def test_what_cannot_fit_is_not_begun(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("causcell.atlas.estimate.free_bytes", lambda _: 1000)
    with pytest.raises(OutputFullError, match=r"needs about .* kB and .*atlas\.zarr' has 1 kB left; free some space"):
        recipe.write(tmp_path / "atlas.zarr")
    assert not (tmp_path / "atlas.zarr" / FOLDER / "plan.json").exists()


# -- combinations of labels never seen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("do", [{"stim": "IFN"}, {"state": "rest"}, {"cell_type": "B", "state": "active"}], ids=str)
@pytest.mark.parametrize("mode", ["do", "isolated"])
def test_unseen_combinations_are_counted_beforehand(generator, larger, tmp_path, do, mode):
    """Exactly where nothing follows from what is set; else what is certain, whatever descendants become."""
    told = larger.plan(do=do, grid=[], mode=mode, forecast=True).forecast.unseen_rows
    summary = larger.write(tmp_path / "atlas.zarr", do=do, grid=[], mode=mode)
    targets = [generator.schema.index(concept) for concept in do]
    if mode == "isolated" or not generator.schema.descendants(targets) - set(targets):
        assert told == summary.unseen
    else:
        assert told <= summary.unseen


def test_factual_rows_are_not_counted(generator, cells):
    none = generator.engine.reference.combinations[:0]
    labels = generator.schema.encode(cells.obs)
    factual = make_request(generator.manifest)
    assert count_unseen_rows(labels, factual, generator.schema, none) == 0
    counted = make_request(generator.manifest, {"stim": "IFN"})
    assert count_unseen_rows(labels, counted, generator.schema, none) == len(labels)
