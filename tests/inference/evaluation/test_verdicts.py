"""Verdicts on concepts, from tables whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from causcell.cli.tables import format_report
from causcell.evaluation.report import write_report
from causcell.evaluation.scores import Score
from causcell.evaluation.table import EFFECTS, LABELS, UNSEEN, Table
from causcell.evaluation.verdicts import judge_concepts, mean_score
from causcell.repository.verdicts import Verdict


def labels_table(accuracy: float, majority: float = 0.5, error: float = 0.01) -> Table:
    return Table.of(
        "Labels",
        {"own": {"accuracy": accuracy}, "majority": {"accuracy": majority}},
        interpretation="",
        limitations="",
        errors={"own": {"accuracy": error}},
        kind=LABELS,
        roles={"own": "model", "majority": "trivial"},
        groups={"own": "stim", "majority": "stim"},
    )


def effects_table(*scores: Score, kind: str = EFFECTS, distrusted: dict[str, str] | None = None) -> Table:
    """The model in its default mode and another, a trivial row, and measures with these scores."""
    of_model = {f"m{i}": score for i, score in enumerate(scores)}
    return Table.of(
        f"{kind}: stim",
        {row: dict.fromkeys(of_model, 1.0) for row in ("model, do", "model, isolated", "one for all")},
        interpretation="",
        limitations="",
        kind=kind,
        concept="stim",
        roles={"model, do": "model", "model, isolated": "model", "one for all": "trivial"},
        scores={
            "model, do": of_model,
            "model, isolated": {m: Score(-9.0, 1.0, 0.1) for m in of_model},  # does not count
            "one for all": {m: Score(0.0, each.reach, each.spread) for m, each in of_model.items()},
        },
        distrusted=distrusted,
    )


def judge(*tables: Table) -> Verdict:
    (verdict,) = judge_concepts(tables, ["stim"])
    return verdict


GOOD, NOTHING, BAD, BLURRED = (
    Score(0.8, 1.0, 0.1),
    Score(0.05, 1.0, 0.1),
    Score(-0.6, 1.0, 0.1),
    Score(0.8, 0.1, 0.2),
)


def test_a_concept_that_is_read_and_above_trivial_is_usable() -> None:
    verdict = judge(labels_table(0.98), effects_table(GOOD))
    assert (verdict.usable, verdict.read, verdict.score, verdict.trivial) == (True, True, 0.8, "one for all")
    assert str(verdict).startswith(
        "stim: usable (0.80 ± 0.10 of the way from the best trivial predictor, one for all, to a replicate)"
    )


def test_the_weakest_stratum_is_named_where_it_is_below_the_average() -> None:
    weak = replace(effects_table(GOOD), weakest=((0.3, "stim=IFN in cell_type=B"), (0.2, "stim=IFN in cell_type=T")))
    assert "to a replicate; least, 0.20, for stim=IFN in cell_type=T); read" in judge(labels_table(0.98), weak).reason
    even = replace(effects_table(GOOD), weakest=((0.75, "stim=IFN in cell_type=B"),))  # within the resolution
    assert "least" not in judge(labels_table(0.98), even).reason


@pytest.mark.parametrize(("score", "word"), [(NOTHING, "no better than"), (BAD, "worse than")])
def test_effects_that_are_not_above_trivial_are_not_usable(score: Score, word: str) -> None:
    verdict = judge(labels_table(0.98), effects_table(score))
    assert verdict.usable is False
    assert f"not usable: {word} a trivial predictor" in verdict.reason


def test_a_concept_that_is_not_read_is_not_to_be_intervened_on_whatever_its_effects() -> None:
    for effects in ([], [effects_table(GOOD)]):
        verdict = judge(labels_table(0.51), *effects)
        assert (verdict.usable, verdict.read) == (False, False)
        assert verdict.reason.startswith("not read (right for 0.51 of the cells, the most frequent label for 0.50)")
        assert "don't intervene on it" in verdict.reason
    assert judge(labels_table(0.6)).reason.startswith("hardly read")  # above chance, by a fifth of what is missing


def test_of_few_cells_nothing_is_judged_and_the_reason_is_told() -> None:
    verdict = judge(labels_table(0.3, error=0.12))
    assert (verdict.usable, verdict.read) == (None, None)
    assert verdict.reason.startswith("not judged: too few cells: no two labels are carried by 8 judged cells")
    assert judge(labels_table(0.98), effects_table(BLURRED)).reason.startswith(
        "not judged: these cells can't tell a replicate from the best trivial predictor"
    )


def test_measures_that_a_cheat_wins_and_those_not_resolved_are_in_no_average() -> None:
    doubt = {"m1": "ranks doubled effects above a real half"}
    assert judge(labels_table(0.98), effects_table(GOOD, BAD, BLURRED, distrusted=doubt)).score == 0.8
    alone = judge(labels_table(0.98), effects_table(GOOD, distrusted={"m0": "ranks control pasted above a real half"}))
    assert alone.usable is None
    assert "no measure can be trusted on these cells (ranks control pasted above a real half)" in alone.reason


def test_without_embeddings_effects_are_judged_alone() -> None:
    verdict = judge(effects_table(GOOD))
    assert (verdict.usable, verdict.read, verdict.accuracy) == (True, None, None)


def test_unseen_combinations_have_a_verdict_of_their_own() -> None:
    seen, unseen = judge_concepts(
        [labels_table(0.98), effects_table(GOOD), effects_table(NOTHING, kind=UNSEEN)], ["stim"]
    )
    assert (seen.usable, unseen.usable) == (True, False)
    assert str(unseen).startswith("stim (unseen combinations): not usable")


def test_the_mean_score_is_over_what_could_be_judged() -> None:
    judged = [judge(labels_table(0.98), effects_table(each)) for each in (GOOD, NOTHING, BLURRED)]
    assert mean_score(judged) == pytest.approx((0.8 + 0.05) / 2)
    assert mean_score(judged[2:]) is None


def test_a_report_opens_with_the_verdicts_and_shows_scores_beside_values(tmp_path: Path) -> None:
    tables = [labels_table(0.98), effects_table(GOOD, BAD, distrusted={"m1": "ranks <cheats> above a real half"})]
    verdicts = judge_concepts(tables, ["stim"])
    content = write_report(tmp_path / "report", "t", {"command": "c"}, tables, verdicts)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == content
    assert [Verdict(**each) for each in content["verdicts"]] == verdicts
    assert content["tables"][1]["rows"]["model, do"]["m0"]["scores"][0]["score"] == 0.8
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("Verdicts") < page.index("0.80 ± 0.10 of the way") < page.index(">Labels</h2>")
    assert "<small>score 0.80 ± 0.10</small>" in page
    assert "<small>score (-0.60 ± 0.10)</small>" in page
    assert "m1 is not to be trusted on these data: it ranks &lt;cheats&gt; above a real half." in page
    lines = format_report(tables, verdicts)
    assert lines[:2] == ["Verdicts", f"  {verdicts[0]}"]
    assert any("0.80 ± 0.10  (-0.60 ± 0.10)" in line for line in lines)
    assert "  (m1) is not to be trusted here: it ranks <cheats> above a real half" in lines
