"""Parts of SVG figures that stand inside a page, in the page's own colours: light and dark pages show them alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

_CHARACTER = 0.64
"""Width of a character over its height, in a wide font."""


def figure_svg(kind: str, title: str, description: str, size: tuple[float, float], body: str) -> str:
    """Return a figure as inline SVG with a title and a description, for those who hear it.

    Parameters
    ----------
    kind
        Class, which the page styles.
    title, description
        What it is, and what it shows, in words; both are escaped.
    size
        Width and height in pixels.
    body
        SVG, as it is.

    Examples
    --------
    >>> print(figure_svg("dots", "A & B", "One dot.", (20, 10), "<circle r='1'/>"))
    <svg class="dots" role="img" viewBox="0 0 20 10" width="20" height="10" xmlns="http://www.w3.org/2000/svg"><title>A
    &amp; B</title><desc>One dot.</desc><circle r='1'/></svg>
    """
    width, height = (f"{each:.0f}" for each in size)
    return (
        f'<svg class="{kind}" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title><desc>{escape(description)}</desc>'
        f"{body}</svg>"
    )


def draw_points(x: np.ndarray, y: np.ndarray) -> str:
    """Return the data of a path with a dot at every place, for round line caps; places within half a pixel are one.

    Parameters
    ----------
    x, y
        Places in pixels, float [n].

    Returns
    -------
    Text of at most about seven bytes a dot, in units of half a pixel: its element is scaled by one half.

    Examples
    --------
    >>> import numpy as np
    >>> draw_points(np.array([1.0, 1.1, 3.0]), np.array([2.0, 2.0, 2.5]))
    'm2 4h0m4 1h0'
    """
    places = np.unique(np.rint(2 * np.stack([x, y], axis=1)).astype(int), axis=0)
    steps = np.diff(places, axis=0, prepend=[[0, 0]])
    return "".join(f"m{dx}{'' if dy < 0 else ' '}{dy}h0" for dx, dy in steps.tolist())


def draw_rings(x: np.ndarray, y: np.ndarray, radius: int) -> str:
    """Return the data of a path with a ring around every place, in units of half a pixel as `draw_points` does.

    Examples
    --------
    >>> import numpy as np
    >>> draw_rings(np.array([2.0]), np.array([3.0]), 4)
    'm0 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0'
    """
    places = np.unique(np.rint(2 * np.stack([x, y], axis=1)).astype(int), axis=0) - [radius, 0]
    ring = f"a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0-{2 * radius} 0"
    steps = np.diff(places, axis=0, prepend=[[0, 0]])
    return "".join(f"m{dx} {dy}{ring}" for dx, dy in steps.tolist())


def nice_step(span: float, parts: int) -> float:
    """Return the step of 1, 2 or 5 times a power of ten that divides a span into at most so many parts.

    Examples
    --------
    >>> nice_step(7.3, 4), nice_step(0.9, 3)
    (2.0, 0.5)
    """
    if not span > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / parts))
    return next((factor * power for factor in (1, 2, 5) if factor * power * parts >= span), 10 * power)


@dataclass(frozen=True)
class PlacedLabel:
    """A text beside its point: where it stands, which end of it stands there (``text-anchor``), and the point."""

    text: str
    x: float
    y: float
    anchor: str
    point: tuple[float, float]


def place_labels(
    points: Iterable[tuple[str, float, float]],
    box: tuple[float, float, float, float],
    *,
    height: float = 10.0,
    radius: float = 3.0,
) -> list[PlacedLabel]:
    """Place texts beside their points so that none covers another or leaves the box; the first ones have their choice.

    Parameters
    ----------
    points
        Text, and place in pixels.
    box
        Left, upper, right and lower edge.
    height
        Of the text.
    radius
        Of the points.

    Returns
    -------
    The labels that find room.
    """
    given = list(points)
    taken = [(x - radius, y - radius, x + radius, y + radius) for _, x, y in given]
    placed = []
    for text, x, y in given:
        width = text_width(text, height)
        for start, middle, anchor in _list_places(x, y, width, height, radius + 1.5):
            own = (start, middle - height / 2, start + width, middle + height / 2)
            inside = own[0] >= box[0] and own[1] >= box[1] and own[2] <= box[2] and own[3] <= box[3]
            if inside and not any(_overlap(own, other) for other in taken):
                taken.append(own)
                at = {"start": start, "middle": x, "end": start + width}[anchor]
                placed.append(PlacedLabel(text, at, middle + 0.3 * height, anchor, (x, y)))
                break
    return placed


def _list_places(x: float, y: float, width: float, height: float, near: float) -> Iterator[tuple[float, float, str]]:
    """List left edge, middle and anchor of a text around its point, from the nearest place on."""
    for away in (0.0, height, -height, 2 * height, -2 * height, 3 * height, -3 * height):
        yield x + near, y + away, "start"
        yield x - near - width, y + away, "end"
        if away:  # else it would stand on the point
            yield x - width / 2, y + away, "middle"


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def text_width(text: str, height: float = 12.0) -> float:
    """Estimate the width of a text in pixels, in a wide font."""
    return _CHARACTER * height * len(text)


def shorten(text: str, width: float, height: float = 12.0) -> str:
    """Cut a text that is wider than some pixels, with an ellipsis.

    Examples
    --------
    >>> shorten("CD14+ Monocytes", 60), shorten("B cells", 60)
    ('CD14+ …', 'B cells')
    """
    most = max(2, int(width / (_CHARACTER * height)))
    return text if len(text) <= most else text[: most - 1] + "…"
