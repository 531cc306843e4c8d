"""Tables of results, in the form that tools of the field take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.gene_tables import gene_table, log2_fold_change
from causcell._internal.labels import find_label
from causcell._internal.significance import treat_scores
from causcell.errors import ConfigurationError

if TYPE_CHECKING:
    import anndata
    import pandas as pd


def effects_df(
    trial: anndata.AnnData,
    label: object = None,
    *,
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Return effects as a table of genes in the form of ``scanpy.get.rank_genes_groups_df``.

    Parameters
    ----------
    trial
        What `causcell.Generator.trial` returned, also read back from a file: a trial of a concept, or effects on cells.
    label
        One label of the trial's concept, or a list of them; all but the baseline, if not given. Of effects on cells,
        the name of a cell, or a list of them: cells have no "all".
    pval_cutoff, log2fc_min, log2fc_max
        Keep genes with a smaller adjusted p-value, a larger and a smaller log2 fold change.
    gene_symbols
        Column of ``trial.var`` to add.

    Returns
    -------
    DataFrame, a row a gene, the highest score of each label first:

    - ``group``: the label (or the cell), where there are several;
    - ``names``: the gene;
    - ``scores``: the statistic that ``pvals`` rest on: by how many errors (of sampling, and of the model) the effect
      exceeds ``min_effect``, 0 where it does not (TREAT: McCarthy and Smyth 2009);
    - ``logfoldchanges``: base 2. Of a trial, as scanpy computes them: from the mean expression under the label and
      under the baseline, log2 of (expm1(mean) + 1e-9) / (expm1(baseline mean) + 1e-9). Of a cell, whose two expressions
      are not kept, effect / ln 2: the log2 ratio of 1 + counts per 10,000;
    - ``pvals``, ``pvals_adj``: p-value and its Benjamini-Hochberg adjustment over the genes; the graph is taken for
      right, and so is the model where its error was not measured (intervals are NaN);
    - ``effect``, ``lower``, ``upper``: the effect and the ends of its interval, natural logarithm; NaN where the file
      holds no intervals;
    - ``changed``: whether the gene was called at the trial's ``fdr``;
    - ``unseen``: share of the cells whose labels, under this one, no training cell carries together; NaN where the file
      does not say, as for effects on cells.

    Raises
    ------
    ConfigurationError
        It holds no effects of this kind, the label is the baseline, no cell was named, or there is no such column.
    UnknownLabelError
        There is no such label, or cell.

    Examples
    --------
    >>> from causcell import Generator
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()[:100]
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     trial = generator.trial(cells, "phase", baseline="G1", draws=1)
    >>> table = effects_df(trial, "S")
    >>> table.columns.tolist()[:5]
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    >>> effects_df(trial, log2fc_min=1)["group"].unique().tolist()
    ['G2M', 'S']
    """
    facts = trial.uns.get("causcell", {})
    of_labels, of_cells = facts.get("trial"), facts.get("effects")
    if of_labels is None and of_cells is None:
        raise ConfigurationError(
            "these are no effects of a trial (uns['causcell'] holds neither 'trial' nor 'effects'); give what "
            "Generator.trial or `causcell trial` made"
        )
    settings = of_cells if of_labels is None else of_labels
    rows = _choose_cells(trial, label) if of_labels is None else _choose_labels(trial, of_labels, label)
    groups = {
        str(trial.obs_names[row]): _columns(trial, row, settings, None if of_labels is None else of_labels["baseline"])
        for row in rows
    }
    return gene_table(
        groups,
        trial.var,
        pval_cutoff=pval_cutoff,
        log2fc_min=log2fc_min,
        log2fc_max=log2fc_max,
        gene_symbols=gene_symbols,
    )


def _as_list(label: object) -> list[object]:
    return list(label) if isinstance(label, Iterable) and not isinstance(label, str) else [label]


def _choose_labels(trial: anndata.AnnData, settings: Mapping[str, Any], label: object) -> list[int]:
    """Return the rows of the labels that were asked for, all but the baseline's where none was."""
    labels = [str(name) for name in trial.obs_names]
    baseline = str(settings["baseline"])
    if label is None:
        rows = [row for row, name in enumerate(labels) if name != baseline]
    else:
        rows = [find_label(each, labels, str(settings["concept"])) for each in _as_list(label)]
    if not rows:
        raise ConfigurationError("no label was given, or the trial holds its baseline alone; name one that is in it")
    if baseline in {labels[row] for row in rows}:
        raise ConfigurationError(
            f"label {baseline!r} is the trial's baseline, which the others are compared with; run the trial against "
            "another (baseline=)"
        )
    return list(dict.fromkeys(rows))


def _choose_cells(effects: anndata.AnnData, label: object) -> list[int]:
    """Return the rows of the cells that were named."""
    if label is None:
        raise ConfigurationError(
            f"these are effects on {effects.n_obs} cells, each with a table of its own: name cells "
            f"(effects_df(effects, {str(effects.obs_names[0])!r})), or average effects by a trial of a concept"
        )
    names = [str(name) for name in effects.obs_names]
    return list(dict.fromkeys(find_label(each, names, "cell") for each in _as_list(label)))


def _columns(
    trial: anndata.AnnData, row: int, settings: Mapping[str, Any], baseline: str | None
) -> dict[str, np.ndarray]:
    """Return the statistics of one row, by column of the table; without a baseline it is a cell's."""

    def layer(name: str) -> np.ndarray:
        if name not in trial.layers:  # files of earlier versions have no intervals
            return np.full(trial.n_vars, np.nan)
        return np.asarray(trial.layers[name][row])

    if baseline is None:
        effect, sampling = np.asarray(trial.X[row], dtype=np.float64), "deviation"
        fold, unseen = effect / np.log(2), np.nan
    else:
        effect, sampling = layer("effect").astype(np.float64), "standard_error"
        fold = log2_fold_change(trial.X[row], trial.X[trial.obs_names.get_loc(baseline)])
        unseen = trial.obs["unseen"].iloc[row] if "unseen" in trial.obs else np.nan
    error = layer("test_error" if "test_error" in trial.layers else sampling)  # tests of earlier versions rest on this
    return {
        "scores": treat_scores(effect, error.astype(np.float64), float(settings["least"])),
        "logfoldchanges": fold,
        "pvals": layer("p_value"),
        "pvals_adj": layer("q_value"),
        "effect": effect,
        "lower": layer("lower").astype(np.float64),
        "upper": layer("upper").astype(np.float64),
        "changed": layer("changed").astype(bool),
        "unseen": np.full(trial.n_vars, unseen, dtype=np.float64),
    }
