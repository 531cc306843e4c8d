"""Evaluation: probes and tables on arrays whose answer is known, and the whole on a trained model."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from causcell.cli.tables import format_measures
from causcell.errors import DataError, OutputExistsError, UnknownConceptError
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.evaluate import Evaluation, evaluate
from causcell.evaluation.expression import tabulate_markers, tabulate_mean_estimate
from causcell.evaluation.probes import (
    classification_scores,
    cluster_cells,
    majority_rate,
    partition_agreement,
    probe_accuracy,
)
from causcell.evaluation.report import draw_bars, write_report
from causcell.evaluation.shifts import find_seen_cases, find_unseen_cases, tabulate_effects
from causcell.evaluation.table import Table, merge_repetitions
from causcell.generator import Generator
from causcell.repository import training_cells
from causcell.repository.training_cells import TrainingCells

# -- probes ------------------------------------------------------------------------------------------------------------


def separated(labels: np.ndarray, distance: float, *, seed: int = 0) -> np.ndarray:
    """Noise of deviation 1 in four dimensions, centred by label at this distance."""
    centres = np.eye(4)[labels] * distance / np.sqrt(2)
    return centres + np.random.default_rng(seed).standard_normal((len(labels), 4))


def test_a_probe_reads_what_is_there_and_guesses_where_nothing_is() -> None:
    labels = np.arange(300) % 3
    informed, silent = separated(labels, 8.0), separated(np.zeros(300, dtype=int), 8.0)
    for probe in ("linear", "neighbours"):
        assert probe_accuracy(informed, labels, probe) > 0.98
        # 300 guesses of three labels: a third, within four standard errors of 0.027
        assert abs(probe_accuracy(silent, labels, probe) - 1 / 3) < 0.11


def test_a_probe_is_tested_on_cells_it_was_not_fitted_on() -> None:
    """More numbers than cells fit any labels; they do not foretell those of other cells."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    assert probe_accuracy(rng.standard_normal((100, 400)), labels) < 0.7


def test_neighbours_read_what_no_linear_probe_can() -> None:
    rng = np.random.default_rng(1)
    angle, labels = rng.uniform(0, 2 * np.pi, 400), np.arange(400) % 2
    ring = (1 + 2 * labels)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert probe_accuracy(ring, labels, "linear") < 0.7
    assert probe_accuracy(ring, labels, "neighbours") > 0.98


def test_unlabelled_cells_and_rare_labels_are_left_out_of_probes() -> None:
    labels = np.array([0, 1] * 50 + [-1] * 20 + [2] * 4)
    embedding = np.concatenate([separated(labels[:100], 8.0), np.full((24, 4), 1e3)])
    assert probe_accuracy(embedding, labels) > 0.95
    assert probe_accuracy(embedding, np.where(labels == 0, 0, -1)) is None
    assert majority_rate(np.array([0, 0, 1, -1, -1, -1, -1])) == pytest.approx(2 / 3)


def test_scores_are_weighted_by_label_frequency() -> None:
    scores = classification_scores(np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 1, 1]))
    assert scores["accuracy"] == scores["recall"] == 0.75
    assert scores["precision"] == pytest.approx(0.75 * 1 + 0.25 * 0.5)
    assert scores["F1"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    for size in (1, 3, 6):
        truth, predicted = rng.integers(-1, size, 200), rng.integers(-1, size + 1, 200)  # also labels never there
        known = truth >= 0
        kinds = precision_recall_fscore_support(truth[known], predicted[known], average="weighted", zero_division=0)
        expected = [accuracy_score(truth[known], predicted[known]), *kinds[:3]]
        assert list(classification_scores(truth, predicted).values()) == pytest.approx(expected)


def test_clusters_find_separated_labels_whatever_their_names() -> None:
    labels = np.repeat([0, 1, 2], 40)
    found = cluster_cells(separated(labels, 10.0), 3)
    assert partition_agreement(labels, found) == {"NMI": pytest.approx(1), "ARI": pytest.approx(1)}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_tables_of_repetitions_are_joined_by_name_row_and_measure() -> None:
    first = Table.of("a", {"x": {"m": 1.0, "n": None}, "empty": {"m": None}}, interpretation="t", limitations="s")
    second = Table.of("a", {"x": {"m": 3.0, "n": 5.0}}, interpretation="t", limitations="s")
    (joined,) = merge_repetitions([[first], [second]])
    assert joined.rows == {"x": {"m": (1.0, 3.0), "n": (5.0,)}}
    assert joined.to_json()["rows"]["x"]["m"] == {"mean": 2.0, "spread": 1.0, "values": [1.0, 3.0]}
    assert format_measures(joined)[1].split() == ["x", "2.000", "±", "1.000", "5.000"]


# -- a trained model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(generator: Generator, cells: anndata.AnnData) -> EvaluationData:
    """Every fourth cell is a test cell, in place of the few that the model was not trained on."""
    rows = np.arange(cells.n_obs)
    return read_evaluation_data(generator, cells, test_rows=rows[::4], training_rows=rows[rows % 4 > 0])


@pytest.fixture(scope="module")
def evaluation(generator: Generator, cells: anndata.AnnData) -> Iterator[Evaluation]:
    yield evaluate(cells, generator, finer=["cell_type"])


def test_cells_trained_on_are_left_out_by_name(generator: Generator, cells: anndata.AnnData) -> None:
    data = read_evaluation_data(generator, cells)
    trained = generator.manifest.training_cells.contain(cells.obs_names.tolist())
    assert set(data.cells.obs_names[data.test_rows]) == set(cells.obs_names[~trained])
    assert set(data.cells.obs_names[data.training_rows]) == set(cells.obs_names[trained])
    np.testing.assert_array_equal(data.expression[data.test_rows], data.test_expression)


def test_a_filter_s_mistakes_are_told(
    generator: Generator, cells: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = generator.manifest.training_cells
    names = cells.obs_names[trained.contain(cells.obs_names.tolist())]
    with monkeypatch.context() as smaller:
        smaller.setattr(training_cells, "MOST_DIGESTS", 10)
        filtered = TrainingCells.of(names)
    manifest = generator.manifest.model_copy(update={"training_cells": filtered})
    monkeypatch.setattr(generator.engine, "manifest", manifest)
    facts = evaluate(cells, generator).facts["cells"]
    assert facts["left out, as the model was trained on them"] == len(names)
    assert facts["share of other cells left out with them"] == filtered.mistaken > 0


def test_of_cells_none_of_which_was_trained_on_a_half_is_for_training_baselines(
    generator: Generator, cells: anndata.AnnData
) -> None:
    others = cells.copy()
    others.obs_names = [f"new_{name}" for name in cells.obs_names]
    data = read_evaluation_data(generator, others)
    assert len(data.test_rows) == len(data.training_rows) == 160
    assert not set(data.test_rows) & set(data.training_rows)


def test_too_few_test_cells_are_refused(generator: Generator, cells: anndata.AnnData) -> None:
    trained = generator.manifest.training_cells.contain(cells.obs_names.tolist())
    with pytest.raises(DataError, match="0 of 288 cells are left that the model was not trained on"):
        read_evaluation_data(generator, cells[trained])


def test_an_evaluation_says_who_was_judged_and_has_every_table(evaluation: Evaluation, cells: anndata.AnnData) -> None:
    counts = evaluation.facts["cells"]
    assert counts["given"] == cells.n_obs
    assert counts["judged"] + counts["left out, as the model was trained on them"] == cells.n_obs
    names = [table.name for table in evaluation.tables]
    assert len(set(names)) == len(names)
    for part in ("own embeddings", "Leakage", "Mean estimate", "Clusters", "Samples", "Finer labels"):
        assert any(part in name for name in names), part
    assert all(table.interpretation and table.limitations for table in evaluation.tables)
    values = [v for table in evaluation.tables for row in table.rows.values() for each in row.values() for v in each]
    assert np.isfinite(values).all()


def test_an_evaluation_is_the_same_again(evaluation: Evaluation, generator: Generator, cells: anndata.AnnData) -> None:
    again = evaluate(cells, generator, finer=["cell_type"])
    assert [table.to_json() for table in again.tables] == [table.to_json() for table in evaluation.tables]


def test_an_unknown_column_of_finer_labels_is_named(generator: Generator, cells: anndata.AnnData) -> None:
    with pytest.raises(UnknownConceptError, match="no column 'subtype'"):
        evaluate(cells, generator, finer=["subtype"])


def test_estimates_are_ordered_as_what_they_know(data: EvaluationData) -> None:
    """Principal components of the cell itself beat its type's mean, which beats the mean of all."""
    rows = {name: values["MSE"][0] for name, values in tabulate_mean_estimate(data).rows.items()}
    assert rows["PCA-32"] < rows["mean of each cell_type"] < rows["mean of all cells"]


def test_markers_of_real_cells_overlap_more_than_by_chance(data: EvaluationData) -> None:
    rows = tabulate_markers(data).rows
    assert rows["by chance"]["overlap"] == (1.0,)  # 50 of 50 genes
    assert rows["other real cells (ceiling)"]["overlap"] == (1.0,)


def test_effects_are_held_against_cells_that_share_the_stratum(data: EvaluationData) -> None:
    cases = find_seen_cases(data)
    assert cases
    stratum = data.schema.index("cell_type")
    for case in cases:
        assert (data.labels[case.source_rows, case.concept] == case.source).all()
        assert (data.labels[case.target_rows, case.concept] == case.target).all()
        assert set(case.source_rows) | set(case.target_rows) <= set(data.test_rows)
        # cell_type follows donor: there the total effect is compared, over all cells
        assert bool(case.stratum) == (data.schema.names[case.concept] in ("stim", "state"))
        for concept, code in case.stratum:
            assert concept == stratum
            assert (data.labels[np.r_[case.source_rows, case.target_rows], concept] == code).all()


def test_no_change_has_no_agreement_and_the_ceiling_is_above_a_half(data: EvaluationData) -> None:
    for table in tabulate_effects(data, find_seen_cases(data), "Interventions"):
        error = table.rows["no change"].pop("squared error", (1.0,))
        for ratio in ("MMD ratio", "energy ratio"):  # of source cells as they are: far from target cells, or near
            table.rows["no change"].pop(ratio, None)
        assert error == pytest.approx((1.0,))
        assert set(table.rows["no change"].values()) == {(0.0,), (0.5,)}
        half = table.rows["real cells, one half against the other"]["pcc"][0]
        assert table.rows["noise-free prediction (ceiling)"]["pcc"][0] >= half


def test_the_weakest_stratum_of_an_effect_is_one_of_its_cases(data: EvaluationData) -> None:
    tables = tabulate_effects(data, find_seen_cases(data), "Interventions")
    found = {table.concept: table.weakest for table in tables if table.weakest}
    assert found
    for concept, ((score, shift),) in found.items():
        assert -1 <= score <= 1
        label, _, stratum = shift.partition(" in ")
        assert label in {f"{concept}={each}" for each in data.schema[concept].labels}
        assert stratum in {"", *(f"cell_type={each}" for each in data.schema["cell_type"].labels)}


def test_unseen_cases_have_held_out_targets_and_sources_one_concept_away(data: EvaluationData) -> None:
    held_out = {"stim": "IFN", "cell_type": "B"}
    codes = {data.schema.index(name): data.schema[name].code(label) for name, label in held_out.items()}
    cases = find_unseen_cases(data, held_out)
    assert {case.concept for case in cases} == set(codes)
    for case in cases:
        assert set(case.target_rows) <= set(data.test_rows)
        for concept, code in codes.items():
            assert (data.labels[case.target_rows, concept] == code).all()
            expected = case.source if concept == case.concept else code
            assert (data.labels[case.source_rows, concept] == expected).all()


def test_a_report_is_json_and_one_page_that_needs_nothing_else(evaluation: Evaluation, tmp_path: Path) -> None:
    facts = {"command": "causcell evaluate <cells>", "versions": {"numpy": "1"}}
    write_report(tmp_path / "report", "Title & more", facts, evaluation.tables)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["command"] == facts["command"]
    assert [table["name"] for table in content["tables"]] == [table.name for table in evaluation.tables]
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('<svg class="dots"') == len(evaluation.tables)
    assert page.count("<summary>Numbers</summary>") == len(evaluation.tables)
    assert page.count("What it can't tell") == len(evaluation.tables)
    assert "causcell evaluate &lt;cells&gt;" in page
    assert "Title &amp; more" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert all(f'href="#table-{number + 1}"' in page for number in range(len(evaluation.tables)))
    with pytest.raises(OutputExistsError):
        write_report(tmp_path / "report", "again", facts, evaluation.tables)


def test_a_notebook_shows_the_report_in_a_frame(evaluation: Evaluation) -> None:
    shown = evaluation._repr_html_()
    page = html.unescape(re.fullmatch(r'<iframe srcdoc="(.*?)" style="[^"]*"></iframe>', shown, re.DOTALL).group(1))
    assert page.startswith("<!doctype html>")
    assert all(html.escape(table.name) in page for table in evaluation.tables)
    for concept in evaluation.facts["model"]["concepts"]:
        assert f">{concept}: " in page or f">{concept}<" in page  # a node of the graph


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_panels(table: Table) -> list[Axes]:
    panels = np.atleast_1d(Figure().subplots(1, len(table.measures), sharey=True))
    return [draw_bars(table, measure, ax) for ax, measure in zip(panels, table.measures, strict=True)]


@pytest.mark.parametrize("measures", [1, 2, 3, 4])
def test_bars_stand_in_the_order_of_the_table_and_are_as_long_as_its_numbers(measures: int) -> None:
    """From the top of the picture down, for any number of panels that share their axis."""
    names = "abcd"[:measures]
    rows = {
        row: {name: tuple(10.0 * i + j + np.array([-1.0, 1.0]) * j) for j, name in enumerate(names)}
        for i, row in enumerate(("10", "9", "model, mean"))
    }
    panels = draw_panels(Table("a", "i", "l", rows))
    texts = [text.get_text() for text in panels[0].get_yticklabels()]
    labels = dict(zip(panels[0].get_yticks(), texts, strict=True))
    for j, ax in enumerate(panels):
        bars = sorted(ax.patches, key=lambda bar: -ax.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1])
        assert [bar.get_width() for bar in bars] == [j, 10 + j, 20 + j]
        middles = [round(bar.get_y() + bar.get_height() / 2, 6) for bar in bars]
        assert [labels[middle] for middle in middles] == list(rows)
        (errors,) = (each for each in ax.collections if isinstance(each, LineCollection))
        spreads = [segment[1, 0] - segment[0, 0] for segment in errors.get_segments()]
        np.testing.assert_allclose(spreads, 2 * j)  # a standard deviation to either side


def test_a_measure_that_was_not_taken_has_no_bar_and_moves_no_other() -> None:
    rows = {"first": {"a": (1.0,)}, "second": {"a": (2.0,), "b": (3.0,)}, "third": {"b": (4.0,)}}
    panels = draw_panels(Table("a", "i", "l", rows))
    np.testing.assert_equal([bar.get_width() for bar in panels[0].patches], [1.0, 2.0, np.nan])
    np.testing.assert_equal([bar.get_width() for bar in panels[1].patches], [np.nan, 3.0, 4.0])


def test_a_single_value_has_the_interval_of_the_table_beside_it() -> None:
    rows, errors = {"model, mean": {"size": 0.9}, "none": {"size": 0.5}}, {"model, mean": {"size": 0.1}}
    table = Table.of("a", rows, interpretation="", limitations="", errors=errors)
    (ax,) = draw_panels(table)
    (whiskers,) = (each for each in ax.collections if isinstance(each, LineCollection))
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    assert table.format_value("model, mean", "size") == "{:.3f} ({:.3f} to {:.3f})".format(0.9, *ends[0])
    assert ends[1] == [0.5, 0.5]


def test_only_rows_of_the_model_have_its_colour() -> None:
    """By their roles, whatever they are called."""
    own, others = ["samples", "mean"], ["model", "mean of each model"]
    rows = {row: {"m": 1.0} for row in own + others}
    roles = dict.fromkeys(own, "model") | dict.fromkeys(others, "trivial")
    (ax,) = draw_panels(Table.of("a", rows, interpretation="", limitations="", roles=roles))
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert len(set(colours[: len(own)])) == len(set(colours[len(own) :])) == 1
    assert colours[0] != colours[-1]


def test_names_with_dollars_are_shown_as_they_are() -> None:
    (ax,) = draw_panels(Table.of("a", {r"$\frac$ of $x$": {"$m$": 1.0}}, interpretation="", limitations=""))
    ax.figure.canvas.draw()  # a formula of it would not be one
    assert ax.get_yticklabels()[0].get_text() == r"\$\frac\$ of \$x\$"
    assert ax.get_title() == r"\$m\$"


def test_a_table_without_a_value_has_no_figure(tmp_path: Path) -> None:
    table = Table.of("Empty", {"x": {"m": None}}, interpretation="", limitations="")
    write_report(tmp_path / "report", "t", {}, [table])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Nothing could be measured" in page
    assert "<img" not in page


# -- old names ---------------------------------------------------------------------------------------------------------


def test_arguments_by_their_old_names_are_taken_with_a_warning(generator: Generator, cells: anndata.AnnData) -> None:
    rows = np.arange(cells.n_obs)
    with pytest.warns(DeprecationWarning, match="use training_rows="):
        data = read_evaluation_data(generator, cells, test_rows=rows[:32], learned=rows[32:])
    np.testing.assert_array_equal(data.training_rows, rows[32:])
    labels = np.arange(40) % 2
    with pytest.warns(DeprecationWarning, match="use probe="):
        assert probe_accuracy(separated(labels, 8.0), labels, reader="neighbours") > 0.9
    with pytest.warns(DeprecationWarning, match="use (interpretation|limitations)="):
        table = Table.of("a", {"x": {"m": 1.0}}, tells="t", silent="s")
    assert table == Table("a", "t", "s", {"x": {"m": (1.0,)}})
