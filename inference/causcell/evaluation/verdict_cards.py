"""Verdicts as a report shows them: a card a concept, with its score between trivial and replicate."""

from __future__ import annotations

from html import escape

from causcell._internal.svg import figure_svg
from causcell.repository.verdicts import Verdict

_CLASSES = {True: "usable", False: "doubtful", None: "unjudged"}
"""Class of a verdict in the page, by whether the concept is usable."""

_WORDS = {True: "usable", False: "don't intervene on it", None: "not judged"}

_LOW, _HIGH, _WIDTH, _HEIGHT, _EDGE = -0.25, 1.25, 210, 40, 12
"""Scores at the ends of the scale (one beyond them stands at the end), and sizes in pixels."""

STYLE = (
    ".verdicts{list-style:none;padding:0}.verdicts li{background:var(--card);border-left:6px solid var(--quiet);"
    "border-radius:6px;padding:.6rem 1rem;margin:.6rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1.5rem;"
    "align-items:center}.verdicts li>div{flex:1 1 24rem}.verdicts .usable{border-color:var(--good)}"
    ".verdicts .doubtful{border-color:var(--far)}.word{font-weight:600;text-transform:uppercase;font-size:.78rem;"
    "letter-spacing:.04em;margin-left:.3rem}.usable .word{color:var(--good)}.doubtful .word{color:var(--far)}"
    ".scale{font:11px system-ui,sans-serif;flex:none}.scale text{fill:var(--quiet)}.scale line{stroke:var(--quiet)}"
    ".scale .spread{stroke:var(--model);stroke-width:5;stroke-opacity:.4;stroke-linecap:round}"
    ".scale circle{fill:var(--model)}"
)
"""What a page needs for them."""


def format_verdict(verdict: Verdict) -> str:
    """Return a verdict as an item of a list, its word once, with a scale where there is a score."""
    word = f'<span class="word">{escape(_WORDS[verdict.usable])}</span>'
    return (
        f'<li class="{_CLASSES[verdict.usable]}"><div><b>{escape(verdict.title)}</b> {word}<br>'
        f"{escape(shorten_reason(verdict))}</div>{_draw_scale(verdict)}</li>"
    )


def shorten_reason(verdict: Verdict) -> str:
    """Return a verdict's reason without the words that its card has already.

    Examples
    --------
    >>> shorten_reason(Verdict(concept="stim", usable=True, reason="usable (0.8 of the way (seen)); read (0.9)"))
    '0.8 of the way (seen); read (0.9)'
    >>> shorten_reason(Verdict(concept="stim", usable=False, reason="not read (0.5): don't intervene on it (0.1)"))
    'not read (0.5); effects (0.1)'
    """
    reason = verdict.reason.replace(": don't intervene on it (", "; effects (", 1)
    reason = reason.replace(": don't intervene on it", "", 1)
    for lead in ("not usable: ", "not judged: "):
        reason = reason.removeprefix(lead)
    if not reason.startswith("usable ("):
        return reason
    inner, depth = reason.removeprefix("usable ("), 1
    for place, character in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return inner[:place] + inner[place + 1 :]
    return reason


def _draw_scale(verdict: Verdict) -> str:
    """Draw the score between the best trivial predictor and a replicate; nothing without a score."""
    if verdict.score is None:
        return ""
    inner = _WIDTH - 2 * _EDGE

    def place(score: float) -> float:
        return _EDGE + inner * (min(max(score, _LOW), _HIGH) - _LOW) / (_HIGH - _LOW)

    spread = verdict.resolution or 0.0
    ends = [place(verdict.score + way * spread) for way in (-1, 1)]
    body = [f'<line x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="13" y2="13" stroke-opacity=".5"/>']
    for score, name in ((0, "0 trivial"), (1, "1 replicate")):
        x = place(score)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="7" y2="19"/>')
        body.append(f'<text x="{x:.1f}" y="34" text-anchor="middle">{name}</text>')
    body.append(f'<line class="spread" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="13" y2="13"/>')
    body.append(f'<circle cx="{place(verdict.score):.1f}" cy="13" r="5.5"/>')
    told = (
        f"{verdict.score:.2f} ± {spread:.2f}: 0 is the best trivial predictor, 1 a replicate of the real cells; "
        "the higher the better."
    )
    return figure_svg("scale", f"Score of {verdict.title}", told, (_WIDTH, _HEIGHT), "".join(body))
