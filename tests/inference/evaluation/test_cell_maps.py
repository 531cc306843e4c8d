"""Maps of interventions: which cells are on them, in which plane, and where there is none."""

import sys

import anndata
import numpy as np
import pytest

from causcell.errors import ConfigurationError
from causcell.evaluation import cell_maps
from causcell.evaluation.cell_maps import CellMap, map_interventions, place_on_components
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.evaluate import evaluate
from causcell.evaluation.shifts import find_seen_cases
from causcell.generator import Generator
from causcell.repository.verdicts import Verdict


@pytest.fixture(scope="module")
def data(generator: Generator, cells: anndata.AnnData) -> EvaluationData:
    rows = np.arange(cells.n_obs)
    colored = cells.copy()
    colored.uns["cell_type_colors"] = ["#112233", "#445566", "#778899"]
    return read_evaluation_data(generator, colored, test_rows=rows[::4], training_rows=rows[rows % 4 > 0])


@pytest.fixture(scope="module")
def found(data: EvaluationData) -> CellMap:
    cases = [case for case in find_seen_cases(data) if data.schema.names[case.concept] == "stim"]
    drawn = map_interventions(data, cases, [])["stim"]
    assert isinstance(drawn, CellMap)
    return drawn


def test_a_map_holds_the_judged_cells_of_its_strata(data: EvaluationData, found: CellMap) -> None:
    cases = [case for case in find_seen_cases(data) if data.schema.names[case.concept] == "stim"]
    for part, cells in (("source_rows", found.sources), ("target_rows", found.targets)):
        rows = np.unique(np.concatenate([getattr(case, part) for case in cases]))
        np.testing.assert_array_equal(cells.labels, data.labels[rows, data.stratum_concept])
    assert len(found.factual.places) == len(found.counterfactual.places) == len(found.sources.places)
    assert {found.source, found.target} == {"ctrl", "IFN"}
    assert dict(zip(found.labels, found.colors, strict=True)) == dict(
        zip(data.cells.obs["cell_type"].cat.categories, ("#112233", "#445566", "#778899"), strict=True)
    )


def test_places_are_those_of_the_cells_in_the_real_ones_plane(data: EvaluationData, found: CellMap) -> None:
    assert (found.axes, "too few" in found.why) == ("PC", True)
    cases = [case for case in find_seen_cases(data) if data.schema.names[case.concept] == "stim"]
    rows = [
        np.unique(np.concatenate([getattr(case, part) for case in cases])) for part in ("source_rows", "target_rows")
    ]
    made = data.predictor.predict(data.cells[rows[0]], {"stim": found.target}, estimate="sample")
    real, acted = place_on_components([data.expression[np.concatenate(rows)], made])
    np.testing.assert_allclose(np.abs(found.sources.places), np.abs(real[: len(rows[0])]), atol=1e-3)
    np.testing.assert_allclose(np.abs(found.counterfactual.places), np.abs(acted), atol=1e-3)


def test_an_intervention_that_is_not_usable_is_not_shown(data: EvaluationData) -> None:
    cases = find_seen_cases(data)
    verdicts = [Verdict(concept="stim", usable=False, reason="no"), Verdict(concept="state", usable=None, reason="?")]
    maps = map_interventions(data, cases, verdicts, "pca")
    assert "not to be intervened on" in maps["stim"]
    assert isinstance(maps["state"], CellMap)
    assert maps["state"].why == "principal components were asked for"
    assert sum(isinstance(each, CellMap) for each in maps.values()) <= 3


def test_enough_cells_have_a_umap_where_there_is_one(data: EvaluationData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_maps, "_FEW_CELLS", 10)
    monkeypatch.setattr(cell_maps, "place_on_umap", lambda values, seed: [each[:, :2] for each in values])
    cases = [case for case in find_seen_cases(data) if data.schema.names[case.concept] == "stim"]
    drawn = map_interventions(data, cases, [])["stim"]
    assert (drawn.axes, drawn.why) == ("UMAP", "")
    monkeypatch.undo()
    monkeypatch.setattr(cell_maps, "_FEW_CELLS", 10)
    monkeypatch.setitem(sys.modules, "umap", None)
    drawn = map_interventions(data, cases, [])["stim"]
    assert (drawn.axes, drawn.why) == ("PC", "umap-learn is not installed")


def test_no_map_is_made_that_was_not_asked_for(data: EvaluationData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_maps, "_map_concept", None)
    assert set(map_interventions(data, find_seen_cases(data), [], "none").values()) == {
        "No map of cells was asked for."
    }


def test_many_cells_are_thinned() -> None:
    rows = cell_maps._spaced(np.arange(10_000))
    assert len(rows) == len(set(rows)) == 500
    assert (rows[0], rows[-1]) == (0, 9_999)


def test_another_plane_is_refused_before_anything_is_measured(generator: Generator, cells: anndata.AnnData) -> None:
    with pytest.raises(
        ConfigurationError, match=r"maps 'tsne' is not known; .*'umap', 'pca' and 'none'|'umap', 'pca', 'none'"
    ):
        evaluate(cells, generator, maps="tsne", report=lambda name: pytest.fail(f"measured {name}"))


def test_a_single_gene_has_a_plane() -> None:
    (places,) = place_on_components([np.arange(8.0)[:, None]])
    assert np.ptp(places[:, 0]) == pytest.approx(7)
    assert (places[:, 1] == 0).all()
