"""Cards of verdicts: the verdict's word once, and its score on a scale."""

import re

import pytest

from causcell.evaluation.report import format_page
from causcell.evaluation.verdict_cards import format_verdict, shorten_reason
from causcell.repository.verdicts import Verdict

WAY = "0.76 ± 0.23 of the way from the best trivial predictor, no change (zeros), to a replicate"


@pytest.mark.parametrize(
    ("usable", "reason", "shown", "word"),
    [
        (True, f"usable ({WAY}); read (right for 0.9)", f"{WAY}; read (right for 0.9)", "usable"),
        (True, f"usable ({WAY}; least, 0.1, for stim=a (b))", f"{WAY}; least, 0.1, for stim=a (b)", "usable"),
        (
            False,
            f"not usable: worse than a trivial predictor ({WAY})",
            f"worse than a trivial predictor ({WAY})",
            "don't",
        ),
        (False, f"hardly read (0.4): don't intervene on it ({WAY})", f"hardly read (0.4); effects ({WAY})", "don't"),
        (None, "not judged: too few cells; read (0.9)", "too few cells; read (0.9)", "not judged"),
        (True, "usable (as an old model says", "usable (as an old model says", "usable"),
    ],
)
def test_a_card_has_the_word_of_its_verdict_once(usable: bool | None, reason: str, shown: str, word: str) -> None:
    verdict = Verdict(concept="stim", usable=usable, reason=reason)
    assert shorten_reason(verdict) == shown
    card = re.sub("<[^>]*>", " ", format_verdict(verdict)).replace("&#x27;", "'")
    assert card.count(word) == (1 if shown != reason else 2)


def test_the_score_is_on_the_scale_in_its_place() -> None:
    places = []
    for score in (0.0, 0.5, 1.0, 9.0, -9.0):
        card = format_verdict(Verdict(concept="stim", score=score, resolution=0.1, reason="r"))
        assert f"<desc>{score:.2f} ± 0.10: " in card
        places.append(float(re.findall(r'cx="([\d.]+)"', card)[0]))
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)
    assert places[4] < places[0] < places[2] < places[3] <= 210
    ticks = re.findall(r'<text x="([\d.]+)"', card)
    assert [float(each) for each in ticks] == pytest.approx([places[0], places[2]], abs=0.1)
    assert "<svg" not in format_verdict(Verdict(concept="stim", reason="r"))


def test_the_graph_tells_how_each_concept_is_read_and_what_may_be_set() -> None:
    facts = {"model": {"concepts": {"donor": 3, "stim": 2, "batch": 2}, "edges": ["donor:stim (0.5)"]}}
    verdicts = [
        Verdict(concept="stim", usable=True, accuracy=0.98, majority=0.5, reason="r"),
        Verdict(concept="donor", usable=False, accuracy=0.31, majority=0.3, reason="r"),
        Verdict(concept="stim", combinations="unseen", usable=False, accuracy=0.1, majority=0.1, reason="r"),
    ]
    page = format_page("t", facts, [], verdicts)
    boxes = re.findall(r'<rect [^>]*stroke="([^"]+)"/><text[^>]*>([^<]+)<', page)
    assert sorted(boxes) == [
        ("currentColor", "batch"),
        ("var(--far)", "donor: 0.31 read right, 0.30 guessed"),
        ("var(--good)", "stim: 0.98 read right, 0.50 guessed"),
    ]
    assert "Arrows go from causes to effects" in page
    assert "Arrows" not in format_page("t", {"model": {"concepts": {"stim": 2}, "edges": []}}, [], verdicts)
