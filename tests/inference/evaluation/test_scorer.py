"""The field's scorer: what it is given, how it is called, and, where it is installed, what it says."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest
from moved_cells import GENES, SCHEMA, Mover, data_of

from causcell.errors import ConfigurationError
from causcell.evaluation.cases import find_seen_cases
from causcell.evaluation.scorer import COLUMN, check_scorer, make_scorer_inputs, run_cell_eval2, tabulate_scorer

ROWS = [
    "model, do",
    "no change",
    "shift of the cells learned from, one for all",
    "real cells, one half against the other",
]


def inputs_of_stim(by: float = 1.0) -> Any:
    data = data_of(Mover(by), seen=True)
    cases = [case for case in find_seen_cases(data) if case.concept == 1]
    return data, cases, make_scorer_inputs(data, cases)["stim"]


def test_a_pair_is_made_of_each_group_and_shares_its_control(tmp_path: Path) -> None:
    data, cases, inputs = inputs_of_stim()
    assert [each.name for each in inputs] == ["cell_type=B", "cell_type=T"]
    for case, each in zip(cases, inputs, strict=True):
        assert sorted(each.pairs) == sorted(ROWS)
        labels = SCHEMA["stim"].labels
        assert each.control == labels[case.source]
        for predicted, real in each.pairs.values():
            for cells in (predicted, real):
                cells.write_h5ad(tmp_path / "cells.h5ad")  # it can be handed over as a file, too
                saved = anndata.read_h5ad(tmp_path / "cells.h5ad")
                assert list(saved.var_names) == list(data.genes)
                assert saved.obs_names.is_unique
                assert set(saved.obs[COLUMN]) == set(labels)
            shared = [cells[cells.obs[COLUMN] == each.control].X.toarray() for cells in (predicted, real)]
            np.testing.assert_array_equal(*shared)
            np.testing.assert_array_equal(shared[0], data.expression[case.source_rows])
        predicted, real = each.pairs["model, do"]
        made = predicted[predicted.obs[COLUMN] != each.control].X.toarray()
        np.testing.assert_allclose(made, data.expression[case.source_rows] + 1, rtol=1e-6)
        target = real[real.obs[COLUMN] != each.control].X.toarray()
        np.testing.assert_array_equal(target, data.expression[case.target_rows])


def test_a_half_of_the_real_cells_shares_no_cell_with_the_other() -> None:
    _, _, inputs = inputs_of_stim()
    one, other = inputs[0].pairs[ROWS[-1]]
    halves = [{tuple(row) for row in each[each.obs[COLUMN] != inputs[0].control].X.toarray()} for each in (one, other)]
    assert not halves[0] & halves[1]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A module with the interface of cell-eval2 that notes how it is called."""
    calls: list[Any] = []
    package, config = ModuleType("cell_eval2"), ModuleType("cell_eval2.config")
    config.DEParams = package.EvalConfig = SimpleNamespace  # type: ignore[attr-defined]

    def compute_metrics(predicted: anndata.AnnData, real: anndata.AnnData, *, config: Any) -> Any:
        calls.append((predicted, real, config))
        return float(abs(predicted.X - real.X).mean() if predicted.shape == real.shape else 7)

    def aggregate_metrics(value: float) -> Any:
        rows = [{"metric": "expr_mae", "mean": value}, {"metric": "pds_cosine", "mean": 1.0}]
        rows += [{"metric": "de_overlap", "mean": float("nan")}]
        return SimpleNamespace(iter_rows=lambda named: rows)

    package.compute_metrics, package.aggregate_metrics = compute_metrics, aggregate_metrics  # type: ignore[attr-defined]
    package.__spec__ = importlib.util.spec_from_loader("cell_eval2", None)
    monkeypatch.setitem(sys.modules, "cell_eval2", package)
    monkeypatch.setitem(sys.modules, "cell_eval2.config", config)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0" if name == "cell-eval2" else version(name))
    yield calls


def test_the_scorer_is_called_for_each_row_and_its_values_are_averaged_over_groups(stand_in: list[Any]) -> None:
    data, cases, inputs = inputs_of_stim()
    (table,) = tabulate_scorer(data, cases)
    assert list(table.rows) == ROWS
    assert len(stand_in) == len(ROWS) * len(inputs)
    for predicted, real, config in stand_in:
        assert (config.pert_col, config.input_type, config.device) == (COLUMN, "lognorm", "cpu")
        assert config.control in set(predicted.obs[COLUMN]) & set(real.obs[COLUMN])
        assert config.target_gene_map == {"*": None}
    values = [float(abs(each.pairs["no change"][0].X - each.pairs["no change"][1].X).mean()) for each in inputs]
    assert table.rows["no change"] == {"expr_mae": (pytest.approx(np.mean(values)),)}  # pds needs two targets
    assert table.roles["model, do"] == "model"
    trivial = [table.scores[row]["expr_mae"][0] for row in table.rows_of("trivial")]
    assert max(each.gain for each in trivial) == 0  # errors: the lower the better


def test_a_scorer_that_is_not_there_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="'cell-eval' is not known; did you mean 'cell-eval2'"):
        check_scorer("cell-eval")


@pytest.mark.scorer
def test_the_real_scorer_tells_a_right_prediction_from_none() -> None:
    pytest.importorskip("cell_eval2", reason="takes causcell[scorer]: the field's scorer, cell-eval2")
    from cell_eval2.io import validate_pair

    _, _, inputs = inputs_of_stim()
    found = {}
    for row, pair in inputs[0].pairs.items():
        validate_pair(*pair, pert_col=COLUMN, control=inputs[0].control)
        found[row] = run_cell_eval2(*pair, control=inputs[0].control)
    assert found["model, do"]["expr_mse_unbiased"] < found["no change"]["expr_mse_unbiased"] / 10
    assert found["model, do"]["de_wilcoxon_sig_jaccard"] > found["no change"].get("de_wilcoxon_sig_jaccard", 0) + 0.3
    assert len(inputs[0].pairs["model, do"][0].var_names) == GENES
