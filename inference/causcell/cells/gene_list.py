"""Genes that people name: a list in a file, names, or a column of ``var`` that marks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.spreadsheet import DELIMITERS, read_rows, read_text
from causcell.cells.panel import check_gene_names
from causcell.cells.table import CellTable
from causcell.errors import ConfigurationError, DataError, GenePanelError, format_list

MARKED = "highly_variable"
"""Column of ``var`` that marks a panel, as `scanpy.pp.highly_variable_genes` writes it."""

_HEADS = {
    "x", "v1", "0", "gene", "genes", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "gene_id",
    "gene_ids", "symbol", "symbols", "name", "names", "id", "index", "feature", "features", "feature_name",
    "var_names", "hgnc_symbol", "ensembl_id",
}  # fmt: skip
"""Heads that programs and people give to a list of genes."""


def read_gene_list(path: str, genes: Sequence[str]) -> list[str]:
    """Read the panel from a file of gene names, one a line or one column of a table.

    Names may contain blanks; a head such as ``gene`` or ``x`` is passed over, comments (``#``) and quotes, too.

    Parameters
    ----------
    path
        The file.
    genes
        Genes of the data.

    Raises
    ------
    ConfigurationError
        The file can't be read, or does not say in which column the genes are, or names fewer than two.
    GenePanelError
        A listed gene is duplicated or not in the data.
    """
    known = set(genes)
    try:
        listed = _find_genes(read_text(path), known)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"genes={path!r} is neither a number, nor 'all', nor {MARKED!r}, nor a file of gene names ({error})"
        ) from error
    check_gene_names(listed)
    if len(listed) < 2:
        raise ConfigurationError(f"genes={path!r} names {len(listed)} genes; give two or more")
    absent = [gene for gene in listed if gene not in known]
    if absent:
        raise GenePanelError(
            f"{len(absent)} of {len(listed)} genes of genes={path!r} are not in the data: "
            f"{format_list(gene[:100] for gene in absent)}; {suggest(absent[0][:100], genes)}leave them out, or give "
            "data that have them"
        )
    return listed


def find_included_genes(given: Sequence[str], genes: Sequence[str]) -> list[str]:
    """Find the genes that are to be on a panel whatever is chosen.

    Parameters
    ----------
    given
        Each a gene, several with commas between them, or a file as `read_gene_list` reads it. What is a gene of the
        data is never taken for a file.
    genes
        Genes of the data.

    Returns
    -------
    list of str
        Each gene once, in the order given.

    Raises
    ------
    ConfigurationError
        A file can't be read, or does not say in which column the genes are.
    GenePanelError
        A name is no gene of the data.

    Examples
    --------
    >>> find_included_genes(["IFIT1,IFIT3", "CD4"], ["CD3D", "CD4", "IFIT1", "IFIT2", "IFIT3"])
    ['IFIT1', 'IFIT3', 'CD4']
    """
    known = set(genes)
    listed: list[str] = []
    for each in given:
        if each in known:
            listed.append(each)
        elif _is_file(each):
            try:
                listed += _find_genes(read_text(each), known)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"include_genes={each!r} can't be read as gene names ({error})") from error
        else:
            listed += [name for part in each.split(",") if (name := part.strip())]
    found = list(dict.fromkeys(listed))
    absent = [gene for gene in found if gene not in known]
    if absent:
        raise GenePanelError(
            f"{len(absent)} of {len(found)} names of include_genes= are neither genes of the data nor a file: "
            f"{format_list(gene[:100] for gene in absent)}; {suggest(absent[0][:100], genes)}correct them, or leave "
            "them out"
        )
    return found


def check_gene_choice(
    cells: CellTable, wanted: int | str, included: Sequence[str] = (), batch_key: str | None = None
) -> int:
    """Check, before values are read, that a panel can be chosen as asked, and return the number of its genes.

    Parameters
    ----------
    cells
        Opened cells.
    wanted
        A number of genes, ``all``, ``highly_variable``, or a file of names.
    included
        Genes that are on the panel anyhow; see `find_included_genes`. They count among a number of genes.
    batch_key
        Column of ``obs`` with the batches within which a number of genes is chosen.

    Raises
    ------
    DataError
        There are no genes.
    ConfigurationError
        A number below 2 or below that of the genes to include, a file that can't be read, no such column of ``obs``, or
        batches where no number is chosen.
    GenePanelError
        A gene is duplicated or not in the data, or ``var`` marks none.
    """
    genes = cells.genes
    check_gene_names(genes)
    if not genes:
        raise DataError("the data have no genes")
    found = find_included_genes(included, genes)
    if isinstance(wanted, str):
        if batch_key is not None:
            raise ConfigurationError(
                f"batch_key={batch_key!r} is for a number of highly variable genes, and genes={wanted!r} is none; "
                "leave one out"
            )
        if wanted == "all":
            return len(genes)
        return len(
            {*find_marked_genes(cells), *found} if wanted == MARKED else {*read_gene_list(wanted, genes), *found}
        )
    if wanted < 2:
        raise ConfigurationError(f"genes={wanted}: take at least 2, 'all', {MARKED!r}, or a file of gene names")
    if len(found) > wanted:
        raise ConfigurationError(
            f"include_genes= names {len(found)} genes, and the panel is to have {wanted}; take genes={len(found)} or "
            "more"
        )
    if batch_key is not None and batch_key not in cells.columns:
        raise ConfigurationError(
            f"batch_key={batch_key!r} is no column of obs; {suggest(batch_key, cells.columns)}its columns are "
            f"{format_list(cells.columns, 40)}"
        )
    return min(wanted, len(genes))


def find_marked_genes(cells: CellTable) -> list[str]:
    """Find the genes that ``var["highly_variable"]`` marks, in the data's order.

    Raises
    ------
    GenePanelError
        There is no such column, it holds something else than true and false, or it marks fewer than two genes.
    """
    marks = cells.gene_column(MARKED)
    table = "raw.var" if cells.raw else "var"
    remedy = "run scanpy.pp.highly_variable_genes(adata), or give a number of genes"
    if marks is None:
        raise GenePanelError(f"genes={MARKED!r}, and {table} has no column {MARKED!r}; {remedy}")
    marks = np.asarray(marks)
    if marks.dtype.kind == "O" and all(isinstance(mark, bool | np.bool_) for mark in marks):
        marks = marks.astype(bool)
    if marks.dtype.kind != "b":
        raise GenePanelError(
            f"genes={MARKED!r}, and {table}[{MARKED!r}] holds more than true and false ({marks.dtype}); {remedy}"
        )
    if marks.sum() < 2:
        raise GenePanelError(f"genes={MARKED!r}, and {table}[{MARKED!r}] marks {int(marks.sum())} genes; {remedy}")
    return [gene for gene, marked in zip(cells.genes, marks, strict=True) if marked]


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # a list of names longer than any path
        return False


def _find_genes(text: str, known: set[str]) -> list[str]:
    """Find the genes in a list or table: one a line, the words of its lines, or the column that has them."""
    lines = _without_head([row[0] for row in read_rows(text, None)], known)
    if known.issuperset(lines):
        return lines
    words = [word for line in lines for word in ([line] if line in known else line.split())]
    if known.issuperset(words):
        return words
    for delimiter in DELIMITERS:
        try:
            rows = read_rows(text, delimiter)
        except ValueError:  # a quote in a list of names
            continue
        width = max(map(len, rows), default=0)
        if width < 2:
            continue
        columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(width)]
        holding = [column for column in columns if known & set(column)]
        if len(holding) == 1:
            return [gene for gene in _without_head(holding[0], known) if gene]
        if holding:
            raise ValueError(f"{len(holding)} of its columns hold genes of the data; give one column")
    return lines


def _without_head(names: list[str], known: set[str]) -> list[str]:
    """Leave out a first name that is a head and no gene."""
    head = bool(names) and names[0] not in known and names[0].casefold() in _HEADS
    return names[1:] if head else names
