"""The panel that training would choose: its size, and what training refuses of how it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from causcell.cells.check.report import Finding
from causcell.cells.collection import Cells
from causcell.cells.gene_list import check_gene_choice
from causcell.errors import CausCellError


def study_panel(
    cells: Cells, genes: int | str, included: Sequence[str], batch_key: str | None
) -> tuple[int, list[Finding]]:
    """Find the number of the panel's genes, and the error that training would raise, if any.

    Parameters
    ----------
    cells, genes, included, batch_key
        See `causcell.cells.gene_list.check_gene_choice`.

    Returns
    -------
    int
        Genes of the panel; those of the file where it can't be chosen as asked.
    list of Finding
        The error. Genes without or with duplicated names are told of with the values.
    """
    count = len(cells.genes)
    if len(set(cells.genes)) < max(count, 1):
        return count, []
    try:
        return check_gene_choice(cells, genes, included, batch_key), []
    except CausCellError as error:
        return count, [Finding("panel", "error", (), str(error))]
