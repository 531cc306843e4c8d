"""Text in figures of matplotlib."""

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
