"""Cross-validation: the cells that each scenario holds out, combinations, and the whole on small cells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest
from exported import export_unmeasured
from short_runs import small_config
from simulation import CONCEPTS, EDGES

from causcell.concept_columns import schema_from_obs
from causcell.concepts import ConceptSchema, as_pairs
from causcell.errors import ConfigurationError, DataError
from causcell.evaluation.table import merge_repetitions
from causcell_export import cross_validation
from causcell_export.cross_validation import (
    _list_scenarios,
    _read_test_rows,
    _tabulate_edges,
    choose_combinations,
    run_benchmark,
)

pytestmark = pytest.mark.slow  # models are trained

HELD_OUT = {"stim": "IFN", "cell_type": "B"}


@pytest.fixture(scope="module")
def schema(cells: anndata.AnnData) -> ConceptSchema:
    return schema_from_obs(cells.obs, CONCEPTS, as_pairs(EDGES, "parent:child", ":"))


def carries(cells: anndata.AnnData, labels: dict[str, str]) -> np.ndarray:
    return np.all([(cells.obs[concept] == label).to_numpy() for concept, label in labels.items()], axis=0)


def test_folds_judge_every_cell_once(cells: anndata.AnnData, schema: ConceptSchema) -> None:
    folds = list(_list_scenarios(schema, schema.encode(cells.obs), 4, [], 0))
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(cells.n_obs))
    assert max(len(fold.test) for fold in folds) - min(len(fold.test) for fold in folds) <= 1


def test_seeds_split_anew_and_reproducibly(cells: anndata.AnnData, schema: ConceptSchema) -> None:
    labels = schema.encode(cells.obs)
    first, again, other = (next(_list_scenarios(schema, labels, 1, [], seed)).test for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(other) == round(0.2 * cells.n_obs)
    assert set(first) != set(other)


def test_a_combination_holds_out_all_of_its_cells_and_no_other(cells: anndata.AnnData, schema: ConceptSchema) -> None:
    *_, unseen = _list_scenarios(schema, schema.encode(cells.obs), 1, [HELD_OUT], 0)
    np.testing.assert_array_equal(unseen.test, np.flatnonzero(carries(cells, HELD_OUT)))


def test_a_split_file_names_the_cells_to_judge(cells: anndata.AnnData, schema: ConceptSchema, tmp_path: Path) -> None:
    rows = "".join(f"{name},{'train' if i % 5 else 'test'}\n" for i, name in enumerate(cells.obs_names))
    (tmp_path / "split.csv").write_text("cell,split\n" + rows)
    test = _read_test_rows(cells.obs_names, tmp_path / "split.csv")
    np.testing.assert_array_equal(test, np.arange(0, cells.n_obs, 5))
    for seed in (0, 1):
        (scenario,) = _list_scenarios(schema, schema.encode(cells.obs), 1, [], seed, test)
        np.testing.assert_array_equal(np.flatnonzero(scenario.name_parts(cells.n_obs) == "test"), test)
    (tmp_path / "split.csv").write_text("cell,split\n" + rows.replace("test", "train"))
    with pytest.raises(DataError, match="gives no cell of the data"):
        _read_test_rows(cells.obs_names, tmp_path / "split.csv")


def test_chosen_combinations_can_be_learned_from_the_rest(cells: anndata.AnnData, schema: ConceptSchema) -> None:
    chosen = choose_combinations(schema, schema.encode(cells.obs), 3, 0)
    assert len({tuple(sorted(each.items())) for each in chosen}) == 3
    for combination in chosen:
        held_out = carries(cells, combination)
        assert held_out.sum() >= 16
        assert len(combination) == 2
        assert "cell_type" in combination
        for concept, label in combination.items():
            assert (carries(cells, {concept: label}) & ~held_out).sum() >= 16
    with pytest.raises(DataError, match="fewer than 1000"):
        choose_combinations(schema, schema.encode(cells.obs), 1000, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 0}, "folds=0: take at least 1"),
        ({"seeds": 0}, "seeds=0: take at least 1"),
        ({"choose": -1}, "choose=-1: take at least 0"),
        ({"hold_out": ["stim=IFN"]}, "hold_out='stim=IFN' names one concept"),
        ({"folds": 2, "split": "split.csv"}, r"split='split\.csv' and folds=2 exclude each other"),
    ],
)
def test_settings_that_can_not_be_carried_out_are_refused(
    cells: anndata.AnnData, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_benchmark(cells, small_config(optimisation__epochs=1, model__timesteps=21), **options)


def test_a_rare_combination_is_refused(cells: anndata.AnnData) -> None:
    few = cells.copy()
    few.obs.loc[few.obs_names[carries(few, HELD_OUT)][15:], "stim"] = "ctrl"
    with pytest.raises(DataError, match=r"stim=IFN,cell_type=B: 15 cells carry it"):
        run_benchmark(few, small_config(optimisation__epochs=1), hold_out=["stim=IFN,cell_type=B"])


def test_a_benchmark_judges_in_distribution_and_on_a_held_out_combination(
    cells: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "export", export_unmeasured)
    lines: list[str] = []
    config = small_config(optimisation__epochs=2, genes=30)
    result = run_benchmark(cells, config, hold_out=["stim=IFN,cell_type=B"], report=lines.append)
    trainings = [line for line in lines if ": training, " in line]
    assert len(trainings) == len(result.facts["trainings"]) == 2
    for stage in ("writing and verifying denoiser", "samples", "effects of stim, 1 of "):  # of judging, in both
        assert any(line.startswith(stage) for line in lines), stage
    names = [table.name for table in result.tables]
    assert "Mean estimate of the judged cells" in names
    assert "Unseen combinations: mean estimate of the judged cells" in names
    judged = {verdict.title for verdict in result.verdicts}
    assert judged >= {"stim", "stim (unseen combinations)", "cell_type", "cell_type (unseen combinations)"}
    assert any(table.kind == "self-test" for table in result.tables)
    apart = [table for table in result.tables if table.name.startswith("unseen stim=IFN,cell_type=B: interventions")]
    assert len(apart) == 2  # towards it by stim, and by cell_type
    for table in apart:
        assert "model, do" in table.rows
        # the combination's own training shift is what nobody has seen
        assert not any("per stratum" in row for row in table.rows)


def test_edges_of_learned_graphs_are_counted_over_trainings() -> None:
    """Found in one of two trainings: half; a run whose graph was given has no such table."""

    def run(found: bool) -> Any:
        facts = {"found": found, "probability": 0.9 if found else 0.2, "strength": 0.1 * found}
        return SimpleNamespace(provenance={"edges": {"stim:state": facts}})

    (table,) = merge_repetitions([_tabulate_edges(run(True)), _tabulate_edges(run(False))])
    assert table.name == "Edges of the learned graph" and "Markov equivalence" in table.limitations
    assert table.rows == {"stim:state": {"found": (1.0, 0.0), "probability": (0.9, 0.2), "strength": (0.1, 0.0)}}
    assert _tabulate_edges(SimpleNamespace(provenance={})) == []
