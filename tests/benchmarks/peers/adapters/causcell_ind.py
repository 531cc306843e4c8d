"""CausCell_IND: the same model, its concepts without causes."""

from __future__ import annotations

import causcell_given


class Adapter(causcell_given.Adapter):
    """CausCell without edges."""

    graph = "independent"
