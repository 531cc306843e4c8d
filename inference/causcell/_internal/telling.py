"""Warnings that point to the line of whoever called CausCell, however deep they arise."""

from __future__ import annotations

import sys
import warnings

from causcell.errors import CausCellWarning

_OWN = {"causcell", "causcell_training", "causcell_export"}


def warn(message: str) -> None:
    """Warn by a `CausCellWarning`, at the innermost line that is not CausCell's own.

    Examples
    --------
    >>> import pytest
    >>> with pytest.warns(CausCellWarning, match="1 row has"):
    ...     warn("1 row has an unseen combination")
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _OWN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, CausCellWarning, stacklevel=level)
