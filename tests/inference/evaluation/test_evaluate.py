"""Evaluation: probes and tables on arrays whose answer is known, and the whole on a trained model."""

import json
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from causcell.errors import DataError, OutputExistsError, UnknownConceptError
from causcell.evaluation.data import Subject, read_subject
from causcell.evaluation.evaluate import Evaluation, evaluate
from causcell.evaluation.expression import markers, mean_estimate
from causcell.evaluation.probes import (
    classification_scores,
    clusters,
    majority_rate,
    partition_agreement,
    probe_accuracy,
)
from causcell.evaluation.report import write_report
from causcell.evaluation.shifts import effects, seen_cases, unseen_cases
from causcell.evaluation.table import Table, as_text, combined
from causcell.generator import Generator

# -- probes ------------------------------------------------------------------------------------------------------------


def separated(labels: np.ndarray, distance: float, *, seed: int = 0) -> np.ndarray:
    """Noise of deviation 1 in four dimensions, centred by label at this distance."""
    centres = np.eye(4)[labels] * distance / np.sqrt(2)
    return centres + np.random.default_rng(seed).standard_normal((len(labels), 4))


def test_a_probe_reads_what_is_there_and_guesses_where_nothing_is() -> None:
    labels = np.arange(300) % 3
    told, silent = separated(labels, 8.0), separated(np.zeros(300, dtype=int), 8.0)
    for reader in ("linear", "neighbours"):
        assert probe_accuracy(told, labels, reader) > 0.98
        # 300 guesses of three labels: a third, within four standard errors of 0.027
        assert abs(probe_accuracy(silent, labels, reader) - 1 / 3) < 0.11


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


def test_clusters_find_separated_labels_whatever_their_names() -> None:
    labels = np.repeat([0, 1, 2], 40)
    found = clusters(separated(labels, 10.0), 3)
    assert partition_agreement(labels, found) == {"NMI": pytest.approx(1), "ARI": pytest.approx(1)}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_tables_of_repetitions_are_joined_by_name_row_and_measure() -> None:
    first = Table.of("a", {"x": {"m": 1.0, "n": None}, "empty": {"m": None}}, tells="t", silent="s")
    second = Table.of("a", {"x": {"m": 3.0, "n": 5.0}}, tells="t", silent="s")
    (joined,) = combined([[first], [second]])
    assert joined.rows == {"x": {"m": (1.0, 3.0), "n": (5.0,)}}
    assert joined.to_json()["rows"]["x"]["m"] == {"mean": 2.0, "spread": 1.0, "values": [1.0, 3.0]}
    assert as_text(joined)[1].split() == ["x", "2.000", "±", "1.000", "5.000"]


# -- a trained model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject(generator: Generator, cells: anndata.AnnData) -> Subject:
    """Judged are all but the cells trained on (16 of 320 are held out by default): here every fourth cell."""
    rows = np.arange(cells.n_obs)
    return read_subject(generator, cells, judged=rows[::4], learned=rows[rows % 4 > 0])


@pytest.fixture(scope="module")
def evaluation(generator: Generator, cells: anndata.AnnData) -> Iterator[Evaluation]:
    yield evaluate(cells, generator, finer=["cell_type"])


def test_cells_trained_on_are_left_out_by_name(generator: Generator, cells: anndata.AnnData) -> None:
    subject = read_subject(generator, cells)
    trained = generator.manifest.training_cells.contain(cells.obs_names.tolist())
    assert set(subject.cells.obs_names[subject.judged]) == set(cells.obs_names[~trained])
    assert set(subject.cells.obs_names[subject.learned]) == set(cells.obs_names[trained])
    np.testing.assert_array_equal(subject.expression[subject.judged], subject.real)


def test_of_cells_none_of_which_was_trained_on_a_half_is_learned_from(
    generator: Generator, cells: anndata.AnnData
) -> None:
    others = cells.copy()
    others.obs_names = [f"new_{name}" for name in cells.obs_names]
    subject = read_subject(generator, others)
    assert len(subject.judged) == len(subject.learned) == 160
    assert not set(subject.judged) & set(subject.learned)


def test_too_few_cells_to_judge_are_refused(generator: Generator, cells: anndata.AnnData) -> None:
    trained = generator.manifest.training_cells.contain(cells.obs_names.tolist())
    with pytest.raises(DataError, match="0 of 288 cells are left that the model was not trained on"):
        read_subject(generator, cells[trained])


def test_an_evaluation_says_who_was_judged_and_has_every_table(evaluation: Evaluation, cells: anndata.AnnData) -> None:
    counts = evaluation.facts["cells"]
    assert counts["given"] == cells.n_obs
    assert counts["judged"] + counts["left out, as the model was trained on them"] == cells.n_obs
    names = [table.name for table in evaluation.tables]
    assert len(set(names)) == len(names)
    for part in ("own embeddings", "Leakage", "Mean estimate", "Clusters", "Samples", "Finer labels"):
        assert any(part in name for name in names), part
    assert all(table.tells and table.silent for table in evaluation.tables)
    values = [v for table in evaluation.tables for row in table.rows.values() for each in row.values() for v in each]
    assert np.isfinite(values).all()


def test_an_evaluation_is_the_same_again(evaluation: Evaluation, generator: Generator, cells: anndata.AnnData) -> None:
    again = evaluate(cells, generator, finer=["cell_type"])
    assert [table.to_json() for table in again.tables] == [table.to_json() for table in evaluation.tables]


def test_an_unknown_column_of_finer_labels_is_named(generator: Generator, cells: anndata.AnnData) -> None:
    with pytest.raises(UnknownConceptError, match="no column 'subtype'"):
        evaluate(cells, generator, finer=["subtype"])


def test_estimates_are_ordered_as_what_they_know(subject: Subject) -> None:
    """Principal components of the cell itself beat its type's mean, which beats the mean of all."""
    rows = {name: values["MSE"][0] for name, values in mean_estimate(subject).rows.items()}
    assert rows["PCA-32"] < rows["mean of each cell_type"] < rows["mean of all cells"]


def test_markers_of_real_cells_overlap_more_than_by_chance(subject: Subject) -> None:
    rows = markers(subject).rows
    assert rows["by chance"]["overlap"] == (1.0,)  # 50 of 50 genes
    assert rows["other real cells (ceiling)"]["overlap"] == (1.0,)


def test_effects_are_held_against_cells_that_share_the_stratum(subject: Subject) -> None:
    cases = seen_cases(subject)
    assert cases
    stratum = subject.schema.index("cell_type")
    for case in cases:
        assert (subject.labels[case.source_rows, case.concept] == case.source).all()
        assert (subject.labels[case.target_rows, case.concept] == case.target).all()
        assert set(case.source_rows) | set(case.target_rows) <= set(subject.judged)
        # cell_type follows donor: there the total effect is compared, over all cells
        assert bool(case.stratum) == (subject.schema.names[case.concept] in ("stim", "state"))
        for concept, code in case.stratum:
            assert concept == stratum
            assert (subject.labels[np.r_[case.source_rows, case.target_rows], concept] == code).all()


def test_no_change_has_no_agreement_and_the_ceiling_is_above_a_half(subject: Subject) -> None:
    for table in effects(subject, seen_cases(subject), "Interventions"):
        assert set(table.rows["no change"].values()) == {(0.0,), (0.5,)}
        half = table.rows["real cells, one half against the other"]["pcc"][0]
        assert table.rows["noise-free prediction (ceiling)"]["pcc"][0] >= half


def test_unseen_cases_have_held_out_targets_and_sources_one_concept_away(subject: Subject) -> None:
    held_out = {"stim": "IFN", "cell_type": "B"}
    codes = {subject.schema.index(name): subject.schema[name].code(label) for name, label in held_out.items()}
    cases = unseen_cases(subject, held_out)
    assert {case.concept for case in cases} == set(codes)
    for case in cases:
        assert set(case.target_rows) <= set(subject.judged)
        for concept, code in codes.items():
            assert (subject.labels[case.target_rows, concept] == code).all()
            expected = case.source if concept == case.concept else code
            assert (subject.labels[case.source_rows, concept] == expected).all()


def test_a_report_is_json_and_one_page_that_needs_nothing_else(evaluation: Evaluation, tmp_path: Path) -> None:
    facts = {"command": "causcell evaluate <cells>", "versions": {"numpy": "1"}}
    write_report(tmp_path / "report", "Title & more", facts, evaluation.tables)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["command"] == facts["command"]
    assert [table["name"] for table in content["tables"]] == [table.name for table in evaluation.tables]
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(evaluation.tables)
    assert page.count("What it can't tell") == len(evaluation.tables)
    assert "causcell evaluate &lt;cells&gt;" in page
    assert "Title &amp; more" in page
    assert "http" not in page
    with pytest.raises(OutputExistsError):
        write_report(tmp_path / "report", "again", facts, evaluation.tables)
