"""Tests of counterfactual cells against the factual cells that they come from, in pairs and, beside it, as two groups.

Each cell is its own control: what varies between cells and is the same in both of a cell's rows is not in the
differences. A test of two groups, such as `scanpy.tl.rank_genes_groups`, holds it against the effect.

Neither p-value is evidence about biology. Both rows come from one model, cells are generated as many as one likes, and
what is tested is how sure the average over these cells is if the model is right: with thousands of cells every gene
that the model moves at all is significant. Rank genes by the effect, take `causcell.Generator.trial` for intervals that
hold the model's error, and units that are independent (``replicate``) for a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from causcell._internal.batching import batches
from causcell._internal.choices import check_choice
from causcell._internal.gene_tables import gene_table, log2_fold_change
from causcell._internal.labels import find_label
from causcell._internal.rank_sums import rank_sum_test
from causcell._internal.signed_ranks import signed_rank_test
from causcell._internal.significance import false_discovery_rate, treat_scores, two_sided_p
from causcell.effects.pairs import Expression, Pairs, find_pairs, list_interventions

if TYPE_CHECKING:
    import anndata
    import pandas as pd

Method = Literal["wilcoxon", "t-test"]
METHODS: tuple[Method, ...] = get_args(Method)

_MEMORY = 2**28
"""Bytes that a test of ranks may take."""

_PER_VALUE = 250
"""Bytes that it takes for a gene of a pair."""


def paired_tests(
    results: anndata.AnnData,
    intervention: str | Sequence[str] | None = None,
    *,
    method: str = "wilcoxon",
    replicate: str | None = None,
    layer: str | None = None,
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Test counterfactual cells against the factual cells that they come from.

    Parameters
    ----------
    results
        Log expression of factual and counterfactual cells: what ``Generator.counterfactual(cells, do=[{}, {...}])``
        returned, or an atlas; in memory, backed or lazy, dense or CSR, or a part of its rows. Draws of a cell are
        averaged first.
    intervention
        One name in ``obs["intervention"]``, or several; all but ``factual``, if not given.
    method
        ``wilcoxon``: signed ranks in pairs (`scipy.stats.wilcoxon`), rank sums of two groups. ``t-test``: Student's in
        pairs, Welch's of two groups.
    replicate
        Column of ``obs`` whose labels are the independent units, such as donors: what is tested are the means of their
        cells. Without it each cell is a unit, which takes cells of one donor for independent.
    layer
        A layer in place of ``X``.
    pval_cutoff, log2fc_min, log2fc_max, gene_symbols
        As in `causcell.get.effects_df`; the cutoff is of ``pvals_adj``, in pairs.

    Returns
    -------
    DataFrame in the form of ``scanpy.get.rank_genes_groups_df``, the highest score of each intervention first:

    - ``group``: the intervention, where there are several; ``names``: the gene;
    - ``scores``, ``pvals``, ``pvals_adj``: z of the signed ranks, or t, of the test in pairs; its p-value; and that
      after Benjamini-Hochberg over the genes;
    - ``logfoldchanges``: base 2, as scanpy computes them, from the means of both rows over units;
    - ``effect``: mean over units of the difference, natural logarithm;
    - ``scores_unpaired``, ``pvals_unpaired``, ``pvals_adj_unpaired``: of the same rows as two groups, as
      ``scanpy.tl.rank_genes_groups`` has them (``wilcoxon`` with ``tie_correct=True``);
    - ``pairs``: number of pairs.

    Notes
    -----
    A t-test, and any test over replicates, reads the rows once and keeps sums. Signed ranks over cells take as many
    genes at once as 256 MB allow, and read all rows for each such block: many times for an atlas on disk.

    Raises
    ------
    ConfigurationError
        Results without factual rows of the same cells, of counts or of effects; an unknown method or layer.
    UnknownConceptError, ConceptError
        No such column of replicates, or a cell without one.
    UnknownLabelError
        No such intervention.
    DataError
        Fewer than two units, or values that are not finite.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()[:50]
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     results = generator.counterfactual(cells, do=[{}, {"phase": "S"}], preset="mean")
    >>> paired_tests(results, method="t-test").columns.tolist()[:6]
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj', 'effect']
    """
    import pandas as pd

    chosen = check_choice(method, METHODS, "method")
    obs = results.obs if isinstance(results.obs, pd.DataFrame) else results.obs.to_memory()
    var = results.var if isinstance(results.var, pd.DataFrame) else results.var.to_memory()
    named = list_interventions(obs)
    given = named if intervention is None else [intervention] if isinstance(intervention, str) else intervention
    asked = [named[find_label(each, named, "intervention")] for each in given]
    expression = Expression.of(results, layer)
    groups = {}
    for name in dict.fromkeys(asked):
        groups[name] = _columns(expression, find_pairs(obs, name, replicate), chosen)
    return gene_table(
        groups,
        var,
        pval_cutoff=pval_cutoff,
        log2fc_min=log2fc_min,
        log2fc_max=log2fc_max,
        gene_symbols=gene_symbols,
    )


def _columns(expression: Expression, pairs: Pairs, method: Method) -> dict[str, np.ndarray]:
    """Test all genes of one intervention; see `paired_tests` for the columns."""
    if method == "t-test":
        means, paired, unpaired = _test_means(expression, pairs)
    else:
        means, paired, unpaired = _test_ranks(expression, pairs)
    return {
        "scores": paired[0],
        "logfoldchanges": log2_fold_change(means[1], means[0]),
        "pvals": paired[1],
        "pvals_adj": false_discovery_rate(paired[1]),
        "effect": means[1] - means[0],
        "scores_unpaired": unpaired[0],
        "pvals_unpaired": unpaired[1],
        "pvals_adj_unpaired": false_discovery_rate(unpaired[1]),
        "pairs": np.full(expression.genes, pairs.units),
    }


_Tested = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Means of factual and counterfactual units [2 x G]; scores and p-values in pairs, and of two groups, [2 x G]."""


def _test_ranks(expression: Expression, pairs: Pairs) -> _Tested:
    """Test ranks, a block of genes after the other."""
    tested: list[list[np.ndarray]] = [[], [], []]
    size = expression.genes if pairs.replicate is not None else max(1, _MEMORY // (_PER_VALUE * pairs.units))
    for block in batches(expression.genes, size):
        factual, counterfactual = pairs.read_units(expression, block)
        tested[0].append(np.stack([factual.mean(axis=0), counterfactual.mean(axis=0)]))
        tested[1].append(np.stack(signed_rank_test(counterfactual - factual)))
        tested[2].append(np.stack(rank_sum_test(factual, counterfactual)))
    means, paired, unpaired = (np.concatenate(each, axis=1) for each in tested)
    return means, paired, unpaired


def _test_means(expression: Expression, pairs: Pairs) -> _Tested:
    """Test means, by sums over the units; cells are read once."""
    from scipy.stats import ttest_ind_from_stats

    every = slice(0, expression.genes)
    blocks: Iterator[tuple[np.ndarray, np.ndarray]]
    if pairs.replicate is None:
        blocks = ((own, other) for _, own, other in pairs.read_cells(expression, every))
    else:
        blocks = iter([pairs.read_units(expression, every)])
    total, square = np.zeros((2, 3, expression.genes))
    for factual, counterfactual in blocks:
        for place, values in enumerate((factual, counterfactual, counterfactual - factual)):
            total[place] += values.sum(axis=0)
            square[place] += (values**2).sum(axis=0)
    n = pairs.units
    mean = total / n
    variance = np.maximum(square - total * mean, 0) / (n - 1)
    error = np.sqrt(variance[2] / n)
    deviation = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        two = ttest_ind_from_stats(mean[1], deviation[1], n, mean[0], deviation[0], n, equal_var=False)
    paired = np.stack([treat_scores(mean[2], error), two_sided_p(mean[2], error, n - 1)])
    unpaired = np.stack([np.nan_to_num(two.statistic), np.where(np.isnan(two.pvalue), 1.0, two.pvalue)])
    return mean[:2], paired, unpaired
