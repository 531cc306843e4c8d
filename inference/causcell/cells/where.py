"""The small language of ``where``: which cells are taken, by their columns of ``obs``. No part of it runs code.

::

    either      all, several joined by "or" or "|"
    all         one, several joined by "and" or "&"
    one         not ONE, ~ONE, (EITHER), COMPARISON, MEMBER, or a COLUMN that says yes or no
    comparison  VALUE == VALUE; also !=, <, <=, >, >=, and several in a row
    member      VALUE in [LITERAL, ...], VALUE not in [...], COLUMN.isin([...]), COLUMN.isna(), COLUMN.notna()
    value       COLUMN, or a LITERAL: 'text', "text", a number, True, False
    column      a name, `a name of any kind`, or index: the cells' names

It is a part of what pandas' ``query`` takes, and means the same, but for two things. A text is not compared with a
number: that is an error, where pandas finds no cell. A missing value is unequal to everything and in no list, whatever
the type of the column: each comparison with it says no, but for ``!=`` and ``not in``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from causcell.cells.where_parser import Parser
from causcell.cells.where_rows import Evaluation

if TYPE_CHECKING:
    import pandas as pd


class Where:
    """A condition on cells.

    Parameters
    ----------
    text
        The condition; the module tells its form.
    columns
        Columns of ``obs``.

    Attributes
    ----------
    text
        As given.
    columns
        Those of the columns that it reads; `causcell.cells.where_tree.INDEX` stands for the cells' names.

    Raises
    ------
    ConceptError
        It can't be read, or names a column that there is not.
    ConfigurationError
        It does not say yes or no for each cell.

    Examples
    --------
    >>> import pandas as pd
    >>> obs = pd.DataFrame({"stim": ["ctrl", "IFN", None], "dose": [0.0, 2.0, 3.0]})
    >>> Where("stim == 'IFN' or dose >= 3", obs.columns).evaluate(obs)
    array([False,  True,  True])
    """

    def __init__(self, text: str, columns: Iterable[str]) -> None:
        parser = Parser(text, list(map(str, columns)))
        self.text = text
        self._condition = parser.parse()
        self.columns: frozenset[str] = frozenset(parser.named)

    def evaluate(self, obs: pd.DataFrame) -> np.ndarray:
        """Say which rows are taken, bool [n].

        Parameters
        ----------
        obs
            At least the columns that the condition reads.

        Raises
        ------
        ConceptError
            A comparison that makes no sense for a column.
        ConfigurationError
            A column alone that does not say yes or no.
        """
        return Evaluation(self.text, obs).rows(self._condition)
