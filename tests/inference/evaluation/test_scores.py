"""Scores, replicates, trivial shifts and the self-test, on arrays whose answer is known."""

import numpy as np
import pytest

from causcell.evaluation.baselines import ADDITIVE, MEAN_RESPONSE, NO_CHANGE, ONE_FOR_ALL, PER_STRATUM, TrivialShifts
from causcell.evaluation.cases import Case, choose_largest
from causcell.evaluation.halves import (
    CHEATS,
    CONTROL,
    DOUBLED,
    DRAWN_HALF,
    HALF,
    PERMUTED,
    draw_towards,
    measure_halves,
)
from causcell.evaluation.scores import Score, average_scores, distance_from_best, score_halves, score_rows
from causcell.evaluation.self_test import mark_distrusted, name_cheats, name_trivial_winners, separate_self_tests
from causcell.evaluation.table import LABELS, SELF_TEST, Table, merge_repetitions

# -- the scale ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("better", ["higher", "lower", "one"])
def test_the_best_trivial_row_scores_0_and_the_best_replicate_1(better: str) -> None:
    values = {"higher": (0.2, 0.1, 0.8, 0.6), "lower": (0.8, 0.9, 0.2, 0.4), "one": (1.8, 0.1, 0.8, 1.4)}[better]
    rows = dict(zip(("best trivial", "trivial", "replicate", "model"), values, strict=True))
    roles = {"best trivial": "trivial", "trivial": "trivial", "replicate": "replicate", "model": "model"}
    scores = score_rows({row: {"m": value} for row, value in rows.items()}, roles, {"m": better})
    assert scores["best trivial"]["m"].value == 0
    assert scores["replicate"]["m"].value == 1
    assert scores["model"]["m"].value == pytest.approx(2 / 3)
    assert scores["trivial"]["m"].value < 0


def test_a_measure_best_at_the_real_value_is_scored_by_its_distance_from_there() -> None:
    rows = {"model": {"nonzero": 0.06}, "means": {"nonzero": 0.50}, "real": {"nonzero": 0.05}}
    roles = {"model": "model", "means": "trivial", "real": "replicate"}
    scores = score_rows(rows, roles, {"nonzero": "real"}, real={"nonzero": 0.05})
    assert scores["model"]["nonzero"].value == pytest.approx(0.44 / 0.45)
    with pytest.raises(ValueError, match="give real="):
        distance_from_best(0.1, "real")


def test_where_the_replicate_is_not_told_from_the_trivial_row_there_is_no_number() -> None:
    rows = {"model": {"m": 0.9}, "means": {"m": 0.5}, "real": {"m": 0.51}}
    roles = {"model": "model", "means": "trivial", "real": "replicate"}
    score = score_rows(rows, roles, {"m": "higher"}, spreads={"m": 0.02})["model"]["m"]
    assert score.value is None
    assert score.to_json()["score"] is None  # and no 40 in any file
    table = Table.of("t", rows, interpretation="", limitations="", roles=roles, scores={"model": {"m": score}})
    assert table.format_score("model", "m") == "not resolved"


def test_rows_of_one_question_are_not_scored_by_those_of_another() -> None:
    rows = {"a: model": {"m": 0.5}, "a: guess": {"m": 0.0}, "a: probe": {"m": 1.0}, "b: guess": {"m": 0.4}}
    roles = {"a: model": "model", "a: guess": "trivial", "a: probe": "replicate", "b: guess": "trivial"}
    scores = score_rows(rows, roles, {"m": "higher"}, groups={row: row[0] for row in rows})
    assert scores["a: model"]["m"].value == 0.5
    assert "b: guess" not in scores


def test_averages_leave_out_what_is_not_resolved_and_no_measure_makes_up_for_another() -> None:
    scores = [Score(5.0, 1.0, 0.1), Score(-1.0, 1.0, 0.1), Score(7.0, 0.1, 0.5)]
    assert average_scores(scores) == (0.0, 0.1)
    assert average_scores(scores[2:]) is None


def test_the_spread_of_the_replicate_over_halves_is_the_resolution() -> None:
    halves = {"model": [[0.5], [0.5]], "nothing": [[1.0], [1.0]], "half": [[0.1], [0.3]]}
    roles = {"model": "model", "nothing": "trivial", "half": "replicate"}
    score = score_halves({name: np.array(each) for name, each in halves.items()}, roles)["model"]
    assert score.value == pytest.approx(0.5 / 0.8)
    assert score.resolution == pytest.approx(np.std([0.1, 0.3], ddof=1) / 0.8)


def test_cases_that_lack_the_best_trivial_row_are_held_against_the_next() -> None:
    distances = {
        "model": np.array([[0.5, 0.5]]),
        "best": np.array([[0.6, np.nan]]),
        "next": np.array([[0.9, 1.0]]),
        "half": np.array([[0.1, 0.1]]),
    }
    roles = {"model": "model", "best": "trivial", "next": "trivial", "half": "replicate"}
    score = score_halves(distances, roles)["model"]
    assert score.gain == pytest.approx((0.1 + 0.5) / 2)


def test_halvings_without_a_value_are_left_out_and_do_not_widen_the_spread() -> None:
    """A second case that is worse throughout, and can't be measured in one halving."""
    replicate = np.array([[0.1, 0.5], [0.1, np.nan], [0.1, 0.5]])
    distances = {"model": replicate + 0.2, "nothing": replicate + 0.4, "half": replicate}
    score = score_halves(distances, {"model": "model", "nothing": "trivial", "half": "replicate"})["model"]
    assert score.value == pytest.approx(0.5)
    assert score.spread == pytest.approx(0, abs=1e-12)


# -- trivial shifts ----------------------------------------------------------------------------------------------------


def additive_cells() -> tuple[np.ndarray, np.ndarray]:
    """Cells of three strata and three labels, whose expression is the sum of both's effects, without noise."""
    labels = np.array([(s, t) for s in range(3) for t in range(3) for _ in range(5 + 3 * s * t)])
    effects = np.array([[0, 0], [1, 0], [3, 1]])[labels[:, 1]] + np.array([[0, 0], [5, 0], [0, 7]])[labels[:, 0]]
    return effects.astype(np.float32), labels


def test_the_additive_shift_is_right_where_effects_add_up_and_cells_were_not_seen() -> None:
    x, labels = additive_cells()
    unseen = (labels == (2, 2)).all(axis=1)
    case = Case(1, 0, 2, ((0, 2),), np.arange(8), np.arange(8))
    shifts = TrivialShifts(x[~unseen], labels[~unseen]).predict(case)
    np.testing.assert_allclose(shifts[ADDITIVE], [3, 1], atol=1e-6)
    assert PER_STRATUM not in shifts  # was not seen
    # cells of other strata differ in number between labels: one shift for all takes that for an effect
    assert np.abs(shifts[ONE_FOR_ALL] - [3, 1]).max() > 0.5
    assert not shifts[NO_CHANGE].any()
    assert MEAN_RESPONSE in shifts


def test_the_additive_shift_does_not_look_at_the_stratum_that_it_is_for() -> None:
    x, labels = additive_cells()
    x[(labels == (2, 2)).all(axis=1)] += 100
    shifts = TrivialShifts(x, labels).predict(Case(1, 0, 2, ((0, 2),), np.arange(8), np.arange(8)))
    np.testing.assert_allclose(shifts[ADDITIVE], [3, 1], atol=1e-6)
    np.testing.assert_allclose(shifts[PER_STRATUM], [103, 101], atol=1e-5)


def test_over_all_cells_there_is_no_additive_shift_and_of_two_labels_no_mean_response() -> None:
    x, labels = additive_cells()
    two = labels[:, 1] < 2
    shifts = TrivialShifts(x[two], labels[two]).predict(Case(1, 0, 1, (), np.arange(8), np.arange(8)))
    assert set(shifts) == {NO_CHANGE, ONE_FOR_ALL, PER_STRATUM}


def test_the_largest_cases_of_every_concept_are_chosen() -> None:
    cases = [Case(concept, 0, 1, (), np.arange(9), np.arange(n)) for concept in (0, 1) for n in (3, 30, 8)]
    assert [(case.concept, len(case.target_rows)) for case in choose_largest(cases, 2)] == [
        *((0, 30), (0, 8)),
        *((1, 30), (1, 8)),
    ]


# -- replicates and cheats ---------------------------------------------------------------------------------------------


def noisy_halves(size: float, *, response: np.ndarray | None = None):
    """Measures on halves of 40 source and 40 target cells, 300 genes of deviation 1, 60 of which move by ``size``."""
    rng = np.random.default_rng(0)
    true = np.where(np.arange(300) < 60, size, 0.0)
    source, target = rng.normal(0, 1, (40, 300)), rng.normal(true, 1, (40, 300))
    known = {NO_CHANGE: np.zeros(300), ONE_FOR_ALL: 0.7 * true}
    return measure_halves({"right": true, **known}, known, source, target, 0, response=response)


def mean_distance(values: dict[str, list[float | None]], measure: str, better: str) -> float:
    return float(np.mean([distance_from_best(value, better) for value in values[measure]]))


def test_a_half_drawn_towards_what_is_known_is_nearer_to_the_other_half_than_either() -> None:
    """As James and Stein have it; a half alone is further off than a trivial shift of many cells."""
    found = noisy_halves(0.7).predictions
    errors = {row: mean_distance(found[row], "error", "lower") for row in (HALF, DRAWN_HALF, ONE_FOR_ALL, NO_CHANGE)}
    assert errors[HALF] > errors[ONE_FOR_ALL]
    assert errors[DRAWN_HALF] < min(errors[HALF], errors[NO_CHANGE])


def test_without_noise_a_half_stays_as_it_is_and_in_noise_alone_nothing_is_left_of_it() -> None:
    shift, known = np.array([3.0, -1.0]), {"known": np.array([1.0, 0.0])}
    np.testing.assert_allclose(draw_towards(shift, np.zeros(2), known), shift)
    np.testing.assert_allclose(draw_towards(shift, np.full(2, 100.0), known), known["known"])


def test_a_squared_error_tells_the_cheats_from_a_real_half_and_a_correlation_not_doubled_effects() -> None:
    halves = noisy_halves(2.0)
    assert set(halves.cheats) == set(CHEATS) - {"mean response"}
    real = min(mean_distance(halves.predictions[row], "error", "lower") for row in (HALF, DRAWN_HALF))
    for name, values in halves.cheats.items():
        assert mean_distance(values, "error", "lower") > real + 0.1, name
    np.testing.assert_allclose(halves.cheats[DOUBLED]["pcc"], halves.predictions[HALF]["pcc"])
    assert np.mean(halves.cheats[CONTROL]["pcc"]) < 0.2
    assert abs(np.mean(halves.cheats[PERMUTED]["pcc"])) < 0.2


def test_a_cheat_is_named_where_it_is_ahead_by_more_than_it_varies() -> None:
    half = np.array([[0.5, 0.4], [0.7, 0.4]])
    assert name_cheats([half], {"ahead": half - 0.2, "behind": half + 0.2, "level": half}) == (
        "ranks ahead above a real half"
    )
    varying = half - np.array([[0.5, 0.5], [-0.4, -0.4]])  # ahead on average, and behind in every second halving
    assert name_cheats([half], {"varying": varying}) == ""
    assert name_cheats([half + 1, half], {"between": half + 0.5}) == ""  # the better half counts
    assert name_cheats([np.full((2, 2), np.nan)], {"ahead": half}) == ""


def test_a_trivial_row_that_wins_is_named_by_the_table() -> None:
    rows = {"model": {"MSE": 0.3}, "means": {"MSE": 0.2}, "another cell": {"MSE": 0.5}}
    roles = {"model": "model", "means": "trivial", "another cell": "replicate"}
    scores = score_rows(rows, roles, {"MSE": "lower"})
    assert name_trivial_winners(scores, ["means"]) == {"MSE": "ranks means above real cells"}


def test_cheats_are_set_apart_and_what_they_win_is_marked_in_the_tables_that_measure_it() -> None:
    effects = Table.of(
        "Interventions: a",
        {"model": {"m": 1.0}, "half": {"m": 1.0}, "pasted": {"m": 2.0}},
        interpretation="",
        limitations="",
        roles={"model": "model", "half": "replicate", "pasted": "cheat"},
        kind="effects",
    )
    cells = Table.of("Samples", {"model": {"MSE": 1.0, "MMD": 0.1}}, interpretation="", limitations="")
    test = Table.of(
        "Self-test: cells",
        {"half": {"MSE": 1.0}},
        interpretation="",
        limitations="",
        kind=SELF_TEST,
        distrusted={"MSE": "ranks means above a real half", "m": "is of cells, not of effects"},
    )
    first, second, *tests = separate_self_tests([effects, cells, test])
    assert list(first.rows) == ["model", "half"]
    assert first.distrusted == {}
    assert second.distrusted == {"MSE": "ranks means above a real half"}
    assert [(table.kind, list(table.rows)) for table in tests] == [
        (SELF_TEST, ["half", "pasted"]),
        (SELF_TEST, ["half"]),
    ]
    assert mark_distrusted([cells], {"PCC": "x"}) == [cells]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_scores_of_repetitions_are_joined_and_a_doubt_in_one_is_a_doubt() -> None:
    def table(gain: float, distrusted: dict[str, str]) -> Table:
        return Table.of(
            "t",
            {"model": {"m": gain}},
            interpretation="",
            limitations="",
            roles={"model": "model"},
            scores={"model": {"m": Score(gain, 1.0, 0.1)}},
            distrusted=distrusted,
            kind=LABELS,
            groups={"model": "stim"},
        )

    (joined,) = merge_repetitions([[table(0.4, {})], [table(0.6, {"m": "ranks means above a real half"})]])
    assert joined.scores == {"model": {"m": (Score(0.4, 1.0, 0.1), Score(0.6, 1.0, 0.1))}}
    assert joined.format_score("model", "m") == "(0.50 ± 0.10)"
    assert (joined.kind, joined.groups, joined.roles) == (LABELS, {"model": "stim"}, {"model": "model"})
    assert joined.distrusted == {"m": "ranks means above a real half"}
    written = joined.to_json()
    assert [each["score"] for each in written["rows"]["model"]["m"]["scores"]] == [0.4, 0.6]
    assert written["distrusted"] == joined.distrusted
