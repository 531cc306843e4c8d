"""The field's official scorer, cell-eval2 of the Arc Institute, on the effects that an evaluation measures.

cell-eval2 compares two sets of cells, predicted and real, which share their control cells: a pair of them is made for
each group of cells within which effects are taken. It judges samples of cells, in which it finds differential genes
itself, and not effects; its measures stand beside ours. It is an extra (``causcell[scorer]``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from causcell._internal.choices import check_choice
from causcell.errors import RuntimeUnavailableError
from causcell.evaluation.baselines import NO_CHANGE, ONE_FOR_ALL, TrivialShifts
from causcell.evaluation.cases import Case, format_combination
from causcell.evaluation.data import EvaluationData
from causcell.evaluation.registry import Better
from causcell.evaluation.scores import Role, score_rows
from causcell.evaluation.self_test import name_trivial_winners
from causcell.evaluation.table import Table

if TYPE_CHECKING:
    import anndata

SCORERS = ("cell-eval2",)
"""Scorers by the names of their packages."""

COLUMN = "perturbation"
"""Column of ``obs`` with the label that cells carry, or are predicted to carry."""

PROFILE = "vcc2026"
"""Measures that are taken: those of the Virtual Cell Challenge 2026."""

_HALF = "real cells, one half against the other"
_ROLES: dict[str, Role] = {NO_CHANGE: "trivial", ONE_FOR_ALL: "trivial", _HALF: "replicate"}


@dataclass(frozen=True)
class ScorerInput:
    """Input of the scorer for one group of cells.

    Attributes
    ----------
    name
        The group: ``all cells``, or ``cell_type=B``.
    control
        The label of the control cells.
    pairs
        Predicted and real cells by row of the table; see `make_scorer_inputs`.
    """

    name: str
    control: str
    pairs: dict[str, tuple[anndata.AnnData, anndata.AnnData]]


def check_scorer(name: str) -> None:
    """Raise `ConfigurationError` for an unknown scorer, `RuntimeUnavailableError` for one that is not installed."""
    check_choice(name, SCORERS, "scorer")
    try:
        found = importlib.util.find_spec("cell_eval2")
    except ImportError:  # kept from being imported
        found = None
    if found is None:
        raise RuntimeUnavailableError(
            f"scorer={name!r} needs the package cell-eval2, which is not installed; install causcell[scorer] (pip "
            "install 'cell-eval2>=0.20')"
        )


def make_scorer_inputs(data: EvaluationData, cases: Sequence[Case], *, seed: int = 0) -> dict[str, list[ScorerInput]]:
    """Lay out the cells of cases as the scorer wants them.

    Parameters
    ----------
    data
        Who predicts, and the cells.
    cases
        Interventions with their source and target cells.
    seed
        Of samples, and of the halves of the real cells.

    Returns
    -------
    Inputs by concept, one for each group of cells that cases share. Every AnnData has log1p expression of the panel,
    CSR float32, unique names, and the column `COLUMN`: the source label for real source cells, which are the control of
    both sides; a target label for real target cells, or for what a source cell is predicted to be. Rows are the
    predictor's first mode (samples), the source cells as they are, moved by one shift for all, and one half of the real
    target cells against the other.
    """
    grouped: dict[tuple[int, int, tuple[tuple[int, int], ...]], list[Case]] = {}
    for case in cases:
        grouped.setdefault((case.concept, case.source, case.stratum), []).append(case)
    trivial = TrivialShifts(data.baseline_expression, data.baseline_labels)
    found: dict[str, list[ScorerInput]] = {}
    for (concept, source, stratum), members in grouped.items():
        labels = data.schema.concepts[concept].labels
        name = format_combination(data.schema, dict(stratum)) or "all cells"
        pairs = _make_pairs(data, members, trivial, seed)
        found.setdefault(data.schema.names[concept], []).append(ScorerInput(name, labels[source], pairs))
    return found


def _make_pairs(
    data: EvaluationData, cases: Sequence[Case], trivial: TrivialShifts, seed: int
) -> dict[str, tuple[anndata.AnnData, anndata.AnnData]]:
    """Make predicted and real cells by row, for the cases of one group."""
    concept = data.schema.concepts[cases[0].concept]
    control_rows = np.unique(np.concatenate([case.source_rows for case in cases]))
    real = {concept.labels[case.target]: data.expression[case.target_rows] for case in cases}
    predicted: dict[str, dict[str, np.ndarray]] = {}
    mode = data.predictor.modes[0]
    for case in cases:
        label, source = concept.labels[case.target], data.expression[case.source_rows]
        cells = data.cells[case.source_rows]
        made = data.predictor.predict(cells, {concept.name: label}, estimate="sample", mode=mode, seed=seed)
        if made is not None:
            predicted.setdefault(f"model, {mode}", {})[label] = made
        shift = trivial.predict(case).get(ONE_FOR_ALL)
        predicted.setdefault(NO_CHANGE, {})[label] = source
        if shift is not None:
            predicted.setdefault(ONE_FOR_ALL, {})[label] = np.maximum(source + shift, 0)
    rng = np.random.default_rng((seed, 9))
    halves = {label: [x[part] for part in np.array_split(rng.permutation(len(x)), 2)] for label, x in real.items()}
    control = {concept.labels[cases[0].source]: data.expression[control_rows]}
    whole = _make_cells(control | real, data.genes)
    pairs = {
        row: (_make_cells(control | made, data.genes), whole)
        for row, made in predicted.items()
        if len(made) == len(real)
    }
    sides = [_make_cells(control | {label: half[i] for label, half in halves.items()}, data.genes) for i in (0, 1)]
    return pairs | {_HALF: (sides[0], sides[1])}


def _make_cells(groups: dict[str, np.ndarray], genes: Sequence[str]) -> anndata.AnnData:
    """Make an AnnData of the cells of each label, [n x G] each."""
    import anndata
    import pandas as pd

    labels = np.repeat(list(groups), [len(each) for each in groups.values()])
    obs = pd.DataFrame({COLUMN: pd.Categorical(labels)}, index=[f"{i}|{label}" for i, label in enumerate(labels)])
    values = sparse.csr_matrix(np.concatenate(list(groups.values())).astype(np.float32))
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes)))


def tabulate_scorer(
    data: EvaluationData,
    cases: Sequence[Case],
    *,
    scorer: str = "cell-eval2",
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[Table]:
    """Have the field's scorer measure every concept's effects: a table a concept, averages over groups of cells.

    Parameters
    ----------
    data, cases, seed
        As for `make_scorer_inputs`.
    scorer
        One of `SCORERS`.
    report
        Called with the name of each group that is begun.

    Raises
    ------
    ConfigurationError
        An unknown scorer.
    RuntimeUnavailableError
        The scorer is not installed.
    """
    check_scorer(scorer)
    tables = []
    for concept, inputs in make_scorer_inputs(data, cases, seed=seed).items():
        values: dict[str, dict[str, list[float]]] = {}
        for each in inputs:
            if report is not None:
                report(f"{scorer}, {concept}, {each.name}")
            for row, pair in each.pairs.items():
                for measure, value in run_cell_eval2(*pair, control=each.control).items():
                    values.setdefault(row, {}).setdefault(measure, []).append(value)
        means = {
            row: {measure: float(np.mean(taken)) for measure, taken in found.items()} for row, found in values.items()
        }
        roles = {row: _ROLES.get(row, "model") for row in means}
        better = {measure: _better(measure) for found in means.values() for measure in found}
        scores = score_rows(means, roles, better)
        tables.append(
            Table.of(
                f"{scorer}: {concept} ({len(inputs)} groups)",
                dict(sorted(means.items(), key=lambda item: not item[0].startswith("model"))),
                interpretation=f"What the field's scorer, cell-eval2 {metadata.version('cell-eval2')} of the Arc "
                f"Institute, makes of samples of counterfactual cells (profile {PROFILE}, log1p values, no target "
                "genes, differential genes by scanpy): averages over its perturbations and over groups of cells. "
                "Higher is better, but for expr_* (errors) and de_wilcoxon_lfc_nmae. Scores: 0 is the better of no "
                "change and one shift for all, 1 is one half of the real cells.",
                limitations="Its measures of differential genes are left out where fewer than ten genes truly differ, "
                "and pds_cosine, which tells labels from each other, where there is one target. It was made for "
                "counts over all genes; here it sees the panel.",
                roles=roles,
                scores=scores,
                distrusted=name_trivial_winners(scores, [NO_CHANGE, ONE_FOR_ALL]),
            )
        )
    return tables


def _better(measure: str) -> Better:
    return "lower" if measure.startswith("expr_") or measure == "de_wilcoxon_lfc_nmae" else "higher"


def run_cell_eval2(
    predicted: anndata.AnnData, real: anndata.AnnData, *, control: str, profile: str = PROFILE
) -> dict[str, float]:
    """Run cell-eval2 on two sets of cells.

    Parameters
    ----------
    predicted, real
        See `make_scorer_inputs`.
    control
        The label of the control cells.
    profile
        A profile of cell-eval2.

    Returns
    -------
    Its measures by name, over perturbations; those that it could not take are left out.
    """
    from cell_eval2 import EvalConfig, aggregate_metrics, compute_metrics
    from cell_eval2.config import DEParams

    config = EvalConfig(
        metrics=profile,
        pert_col=COLUMN,
        control=control,
        input_type="lognorm",
        device="cpu",
        num_threads=1,
        de=DEParams(backend="scanpy"),
        target_gene_map={"*": None},
    )
    with _quiet():
        found: Any = aggregate_metrics(compute_metrics(predicted, real, config=config))
    means = {str(row["metric"]): row["mean"] for row in found.iter_rows(named=True)}
    several = real.obs[COLUMN].nunique() > 2
    return {
        name: float(mean)
        for name, mean in means.items()
        if mean is not None and np.isfinite(mean) and (several or not name.startswith("pds_"))
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the scorer from telling of every measure that its gates leave out."""
    logger = logging.getLogger("cell_eval2")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
