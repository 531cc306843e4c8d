"""Text and colours in figures of matplotlib."""

from __future__ import annotations


def plain_text(text: object) -> str:
    r"""Return text that matplotlib shows as it is: names may hold ``$``, which begins a formula there.

    Parameters
    ----------
    text
        Name of a gene, a label or a measure.

    Examples
    --------
    >>> print(plain_text("H$2K$"))
    H\$2K\$
    """
    return str(text).replace("$", "\\$")


def distinct_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return as many colours that differ, whatever colours the user's own settings would take in turn."""
    import matplotlib

    for name, size in (("tab10", 10), ("tab20", 20)):
        if count <= size:
            return [matplotlib.colormaps[name](i) for i in range(count)]
    return [matplotlib.colormaps["turbo"](place / (count - 1)) for place in range(count)]
