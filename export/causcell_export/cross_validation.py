"""Cross-validation: train, export and evaluate over splits and seeds, in and out of distribution."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.files import ScratchFolder
from causcell._internal.stages import Report
from causcell.cells.backing import open_anndata
from causcell.concept_columns import schema_from_obs
from causcell.concepts import UNLABELLED, ConceptSchema, as_pairs
from causcell.counterfactual.interventions import parse_do
from causcell.errors import ConfigurationError, DataError
from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.evaluate import check_columns, describe_model, tabulate_interventions, tabulate_test_cells
from causcell.evaluation.expression import tabulate_mean_estimate, tabulate_samples
from causcell.evaluation.self_test import separate_self_tests
from causcell.evaluation.shifts import find_seen_cases, find_unseen_cases, format_combination, tabulate_effects
from causcell.evaluation.table import UNSEEN, Table, merge_repetitions
from causcell.evaluation.verdicts import judge_concepts
from causcell.generator import Generator
from causcell.repository.verdicts import Verdict
from causcell_export.exporter import export
from causcell_training.config import TrainConfig
from causcell_training.data.split import read_split
from causcell_training.fitting import fit
from causcell_training.run import Run

if TYPE_CHECKING:
    import anndata

_TEST_SHARE = 0.2
_MIN_HELD_OUT = 16


@dataclass(frozen=True)
class Scenario:
    """One split of the cells into training and test cells.

    Attributes
    ----------
    name
        ``in distribution``, or the combination of labels that is held out.
    test
        Rows of the test cells, int, ascending: the model is not trained on them.
    held_out
        Labels by concept of the held-out combination; none in distribution.
    """

    name: str
    test: np.ndarray
    held_out: Mapping[str, str] | None = None

    def name_parts(self, count: int) -> np.ndarray:
        """Name the part of each of ``count`` cells, ``train`` or ``test``, object [count]."""
        part = np.full(count, "train", dtype=object)
        part[self.test] = "test"
        return part


@dataclass(frozen=True)
class Benchmark:
    """Result of a benchmark.

    Attributes
    ----------
    facts
        Numbers of cells, seeds and folds, every training with its split and model, and the settings.
    tables
        Measures over splits and seeds; a table of each kind. The last ones are what cheats reach.
    verdicts
        What the tables say of each concept; see `causcell.evaluation.verdicts`.
    """

    facts: dict[str, Any]
    tables: list[Table]
    verdicts: list[Verdict]


def run_benchmark(
    data: anndata.AnnData | str | os.PathLike[str],
    config: TrainConfig,
    *,
    folds: int = 1,
    hold_out: Sequence[str] = (),
    choose: int = 0,
    seeds: int = 1,
    split: str | os.PathLike[str] | None = None,
    finer: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Train, export and evaluate a model for every split and seed.

    Parameters
    ----------
    data
        Cells with labels: an AnnData, or a path to one.
    config
        Settings of training; its seed is the first of the seeds.
    folds
        1: a random fifth of the cells is the test set, another for each seed; K: each cell is a test cell once, of the
        model of its fold.
    hold_out
        Combinations ``CONCEPT=LABEL,CONCEPT=LABEL`` of two and more concepts, each held out of a training of its own.
    choose
        Number of further combinations to choose at random, of a cell-type-like concept's labels and another's.
    seeds
        Number of seeds, of splits and training.
    split
        CSV file (columns ``cell`` and ``split``) that names the test cells (``test`` or ``report``) in place of a
        random fifth, the same for every seed.
    finer
        See `causcell.evaluation.evaluate.evaluate`.
    report
        Called with a line for each training and each stage of judging it; a training's own progress is a bar.

    Raises
    ------
    ConfigurationError
        No seed or fold, folds beside a split, or a combination of a single concept.
    DataError
        A combination that too few cells carry.
    """
    _check_counts(folds, seeds, choose, split)
    cells = open_anndata(data)
    check_columns(cells, finer)
    schema = schema_from_obs(cells.obs, config.concept, as_pairs(config.edge, "parent:child", ":"))
    labels = schema.encode(cells.obs)
    test = None if split is None else _read_test_rows(cells.obs_names.astype(str), split)
    combinations = [parse_do(text.split(",")) for text in hold_out]
    combinations += choose_combinations(schema, labels, choose, config.seed)
    repetitions: list[list[Table]] = []
    facts: dict[str, Any] = {"cells": cells.n_obs, "seeds": seeds, "folds": folds, "trainings": []}
    plan = [
        (seed, scenario)
        for seed in range(config.seed, config.seed + seeds)
        for scenario in _list_scenarios(schema, labels, folds, combinations, seed, test)
    ]  # whole before the first training: what can't be carried out is refused at once
    for seed, scenario in plan:
        if report is not None:
            report(f"seed {seed}, {scenario.name}: training, {len(scenario.test)} cells to judge")
        tables, model = _train_and_evaluate(cells, config.model_copy(update={"seed": seed}), scenario, finer, report)
        repetitions.append(tables)
        facts["trainings"].append({"seed": seed, "split": scenario.name} | model)
    tables = separate_self_tests(merge_repetitions(repetitions))
    return Benchmark(facts | {"config": config.model_dump(mode="json")}, tables, judge_concepts(tables, schema.names))


def _check_counts(folds: int, seeds: int, choose: int, split: str | os.PathLike[str] | None) -> None:
    for name, value, least in (("folds", folds, 1), ("seeds", seeds, 1), ("choose", choose, 0)):
        if value < least:
            raise ConfigurationError(f"{name}={value}: take at least {least}")
    if split is not None and folds > 1:
        raise ConfigurationError(f"split={os.fspath(split)!r} and folds={folds} exclude each other; leave one out")


def _list_scenarios(
    schema: ConceptSchema,
    labels: np.ndarray,
    folds: int,
    combinations: Sequence[Mapping[str, str]],
    seed: int,
    test: np.ndarray | None = None,
) -> Iterator[Scenario]:
    """List the splits of one seed: in distribution, by the test rows given or at random, then each combination."""
    order = np.random.default_rng((seed, 4)).permutation(len(labels))
    if test is not None:
        yield Scenario("in distribution", test)
    elif folds == 1:
        yield Scenario("in distribution", np.sort(order[: round(_TEST_SHARE * len(labels))]))
    else:
        for part in np.array_split(order, folds):
            yield Scenario("in distribution", np.sort(part))
    for combination in combinations:
        codes = {schema.index(concept): schema[concept].code(label) for concept, label in combination.items()}
        text = format_combination(schema, codes)
        if len(codes) < 2:
            raise ConfigurationError(
                f"hold_out={text!r} names one concept; give two or more (CONCEPT=LABEL,CONCEPT=LABEL): a label that no "
                "training cell carries can't be learned"
            )
        name = f"unseen {text}"
        rows = np.flatnonzero((labels[:, list(codes)] == list(codes.values())).all(axis=1))
        if len(rows) < _MIN_HELD_OUT:
            raise DataError(f"{name}: {len(rows)} cells carry it; to judge takes at least {_MIN_HELD_OUT}")
        yield Scenario(name, rows, combination)


def _read_test_rows(names: Sequence[str], split: str | os.PathLike[str]) -> np.ndarray:
    """Read the rows of the test cells that a split file names; raises `DataError` for none."""
    parts = read_split(split)
    rows = np.array([i for i, name in enumerate(names) if parts.get(name) in ("test", "report")], dtype=np.int64)
    if not len(rows):
        raise DataError(f"the split file {os.fspath(split)!r} gives no cell of the data the part test or report")
    return rows


def choose_combinations(schema: ConceptSchema, labels: np.ndarray, count: int, seed: int) -> list[dict[str, str]]:
    """Choose combinations to hold out, at random: a label of the cell-type-like concept with one of another concept.

    Each is carried by at least 16 cells, and both labels by as many others.

    Parameters
    ----------
    schema
        The concepts.
    labels
        Label codes of the cells, int32 [n x m].
    count
        Number of combinations.
    seed
        Of the choice.

    Returns
    -------
    Labels by concept, a mapping a combination.

    Raises
    ------
    DataError
        There are fewer combinations than asked for.
    """
    stratum = schema.index(schema.cell_type_like)
    possible = []
    for other in range(len(schema.concepts)):
        pairs = labels[:, [stratum, other]]
        pairs = pairs[(pairs != UNLABELLED).all(axis=1)]
        for a, b in itertools.product(*(range(len(schema.concepts[i].labels)) for i in (stratum, other))):
            both = int((pairs == (a, b)).all(axis=1).sum())
            others = min((pairs[:, 0] == a).sum(), (pairs[:, 1] == b).sum()) - both
            if other != stratum and min(both, others) >= _MIN_HELD_OUT:
                possible.append({schema.names[i]: schema.concepts[i].labels[c] for i, c in ((other, b), (stratum, a))})
    if len(possible) < count:
        raise DataError(f"there are {len(possible)} combinations that can be held out, fewer than {count}")
    picked = np.random.default_rng((seed, 5)).permutation(len(possible))[:count]
    return [possible[i] for i in picked]


def _train_and_evaluate(
    cells: anndata.AnnData, config: TrainConfig, scenario: Scenario, finer: Sequence[str], report: Report | None
) -> tuple[list[Table], dict[str, Any]]:
    """Train on the cells that a scenario leaves, and return the tables of its test cells and the facts of the model."""
    part = scenario.name_parts(cells.n_obs)
    split = dict(zip(cells.obs_names.astype(str), part, strict=True))
    with ScratchFolder() as scratch:
        run = fit(cells, scratch.path / "run", config=config, split=split, progress=report is not None)
        with Generator.open(export(run, scratch.path / "models", progress=report or False)) as generator:
            data = read_evaluation_data(
                generator,
                cells,
                test_rows=scenario.test,
                training_rows=np.flatnonzero(part == "train"),
                layer=config.layer,
                raw=config.raw,
                totals=config.totals,
                round_counts=config.round_counts,
                seed=config.seed,
            )
            facts = {"seconds": run.provenance["seconds"]} | describe_model(generator)
            return _tabulate(data, scenario, finer, config.seed, report) + _tabulate_edges(run), facts


def _tabulate_edges(run: Run) -> list[Table]:
    """Tabulate which allowed edges a training found, of a learned graph; over trainings the means are how often."""
    edges: Mapping[str, Mapping[str, float]] = run.provenance.get("edges", {})
    rows = {
        name: {"found": float(facts["found"]), "probability": facts["probability"], "strength": facts["strength"]}
        for name, facts in edges.items()
    }
    table = Table.of(
        "Edges of the learned graph",
        rows,
        interpretation="Share of trainings, each on other cells or with another seed, that found the edge; its "
        "probability; and the share of the child's variance that it carries. An edge found by chance is not stable.",
        limitations="Directions: those of the allowed edges are taken for true, as data tell a graph up to Markov "
        "equivalence. Common causes without labels, which look like edges.",
    )
    return [table] if rows else []


def _tabulate(
    data: EvaluationData, scenario: Scenario, finer: Sequence[str], seed: int, report: Report | None
) -> list[Table]:
    if scenario.held_out is None:
        tables = tabulate_test_cells(data, finer=finer, seed=seed, report=report)
        return tables + tabulate_interventions(data, find_seen_cases(data), "Interventions", seed=seed, report=report)
    tables = [tabulate_mean_estimate(data), tabulate_samples(data, seed)]
    tables = [replace(table, name=f"Unseen combinations: {table.name.lower()}") for table in tables]
    cases = find_unseen_cases(data, scenario.held_out)
    apart = tabulate_effects(data, cases, "Interventions", seed=seed, report=report)
    tables += [replace(table, name=f"Unseen combinations: {table.name.lower()}", kind=UNSEEN) for table in apart]
    return tables + [replace(table, name=f"{scenario.name}: {table.name.lower()}", kind="") for table in apart]
