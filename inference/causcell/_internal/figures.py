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


SAFE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008)."""

_MORE = ("#332288", "#882255", "#999933", "#AA4499")
"""Four that differ from those in lightness too (Tol 2021, scheme "muted")."""


def safe_colours(count: int) -> list[str]:
    """Return as many colours, ``#rrggbb``, that people with any colour vision tell apart: beyond eight, less well.

    Examples
    --------
    >>> safe_colours(2), len(set(safe_colours(30)))
    (['#0072B2', '#E69F00'], 30)
    """
    if count <= len(SAFE + _MORE):
        return list((SAFE + _MORE)[:count])
    from matplotlib.colors import to_hex

    return list(map(to_hex, distinct_colours(count)))


def distinct_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return as many colours that differ, whatever colours the user's own settings would take in turn."""
    import matplotlib

    for name, size in (("tab10", 10), ("tab20", 20)):
        if count <= size:
            return [matplotlib.colormaps[name](i) for i in range(count)]
    return [matplotlib.colormaps["turbo"](place / (count - 1)) for place in range(count)]
