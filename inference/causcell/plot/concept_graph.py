"""Figure of a model's concept graph, with what is known of each concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from causcell._internal.figures import plain_text
from causcell._internal.html import place_concepts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {True: "#009E73", False: "#D55E00", None: "0.45"}
_WORDS = {True: "usable", False: "not usable", None: "not judged"}
_PIXEL = 1 / 62
"""Inches of a pixel of the layout."""


class _Manifest(Protocol):
    @property
    def verdicts(self) -> Sequence[Any]: ...


class _Model(Protocol):
    @property
    def schema(self) -> Any: ...

    @property
    def manifest(self) -> _Manifest: ...


def graph(model: _Model, *, ax: Axes | None = None) -> Axes:
    """Draw a model's concepts and edges: causes left of effects, coloured by the verdict on interventions.

    Parameters
    ----------
    model
        A `causcell.Generator`, or what `causcell.fit` returns.
    ax
        Axes to draw on; a new figure's, if not given.

    Returns
    -------
    The axes, without ticks. Below each concept stands how often its label is read right from its embedding, beside
    the share of the most frequent label, and the verdict that export wrote.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from causcell import Generator
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     ax = graph(generator)
    >>> [text.get_text().splitlines()[0] for text in ax.texts]
    ['bulk_labels', '.83 read right, most frequent .31', 'phase', '.86 read right, most frequent .77']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    places, (width, height) = place_concepts(model.schema)
    verdicts = {each.concept: each for each in model.manifest.verdicts if each.combinations == "seen"}
    wide, spread = 1.6, 2.2  # room for what stands below each box
    boxes = {name: (places[name][0] * wide, places[name][2] * spread) for name in model.schema.names}
    sizes = {name: places[name][1] - places[name][0] for name in model.schema.names}
    if ax is None:
        size = ((width * wide + 80) * _PIXEL, (height * spread + 40) * _PIXEL)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    for edge in model.schema.edges:
        (left, top), (right, bottom) = boxes[edge.parent], boxes[edge.child]
        arrow = FancyArrowPatch(
            (left + sizes[edge.parent] + 6, top + 13),
            (right - 6, bottom + 13),
            arrowstyle="-|>",
            mutation_scale=11,
            color="0.35",
            connectionstyle=f"arc3,rad={0.0 if top == bottom else 0.12}",
        )
        ax.add_patch(arrow)
    for name, (left, top) in boxes.items():
        verdict = verdicts.get(name)
        colour = _COLOURS[verdict.usable if verdict else None]
        style = "round,pad=2,rounding_size=6"
        ax.add_patch(FancyBboxPatch((left, top), sizes[name], 26, boxstyle=style, fc="white", ec=colour, lw=1.6))
        middle = left + sizes[name] / 2
        ax.text(middle, top + 13, plain_text(name), ha="center", va="center", fontsize=9)
        ax.text(middle, top + 33, _describe(verdict), ha="center", va="top", fontsize=7, color=colour)
    ax.set_xlim(-40, width * wide + 40)
    ax.set_ylim(max(top for _, top in boxes.values()) + 54, -12)
    ax.set_axis_off()
    return ax


def _describe(verdict: Any) -> str:
    if verdict is None:
        return "not judged"
    lines = []
    if verdict.accuracy is not None:
        read, most = (f"{value:.2f}".removeprefix("0") for value in (verdict.accuracy, verdict.majority))
        lines.append(f"{read} read right, most frequent {most}")
    return "\n".join([*lines, _WORDS[verdict.usable]])
