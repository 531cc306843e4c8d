"""The check of a data set before training, and the warnings of it that training gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.choices import suggest
from causcell._internal.telling import warn
from causcell.cells.check.concepts import study_combinations, study_pairs
from causcell.cells.check.expression import study_expression
from causcell.cells.check.labels import label_findings
from causcell.cells.check.panel import study_panel
from causcell.cells.check.report import ConceptSummary, Finding, PairSummary, Report
from causcell.cells.check.training_cost import estimate_training
from causcell.cells.check.values import value_findings
from causcell.cells.collection import Cells
from causcell.concept_columns import check_names
from causcell.concept_reading import LabelFeatures, read_concept, read_label_features, split_kind
from causcell.concepts import Concept, ConceptSchema, Edge, as_pairs
from causcell.errors import ConceptError, ConfigurationError, format_list
from causcell.preprocessing import check_scale

if TYPE_CHECKING:
    import anndata
    import pandas as pd

_ORDER = ("error", "warning", "note")
_MOST_WARNINGS = 8


def check(
    data: anndata.AnnData | str | os.PathLike[str],
    concepts: Sequence[str] | str,
    edges: Sequence[str | tuple[str, str]] | str = (),
    *,
    label_features: Sequence[str] | str = (),
    set_control: Sequence[str] | str = (),
    expression: str | None = None,
    layer: str | None = None,
    raw: bool = False,
    genes: int | str = 2000,
    batch_key: str | None = None,
    include_genes: Sequence[str] | str = (),
) -> Report:
    """Check what a data set lets a model learn, before it is trained.

    Labels, concepts and graph are looked at in all cells, values in a sample. Nothing is changed.

    Parameters
    ----------
    data
        Cells [n x genes] with labels in ``obs``, or a path to them.
    concepts
        Columns of ``obs`` with the concepts' labels, each with ``:KIND`` behind it or without.
    edges
        Causal edges, ``"PARENT:CHILD"`` or pairs.
    label_features, set_control
        Tables of label features, ``"NAME=FILE.csv"``; control labels of sets, ``"NAME=LABEL"``.
    expression
        Scale of the values, ``counts`` or ``log1p``; guessed, if not given.
    layer, raw
        Layer, or ``adata.raw``, to read in place of ``X``.
    genes, batch_key, include_genes
        Panel as training would be asked for it: a number of genes, ``all``, ``highly_variable`` or a file; a column of
        batches; genes to be on it anyhow, each a name, names with commas between, or a file of them.

    Returns
    -------
    Report
        Summaries and findings. What training would refuse is an error among them.

    Raises
    ------
    DataError
        The data can't be opened.
    ConfigurationError
        An unknown scale.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"stim": ["ctrl", "IFN", "IFN "] * 20, "batch": ["b1", "b2", "b2"] * 20})
    >>> adata = anndata.AnnData(np.ones((60, 4), dtype=np.float32), obs=obs.set_index(obs.index.astype(str)))
    >>> [finding.kind for finding in check(adata, ["stim", "batch"]).warnings]
    ['blanks', 'nested']
    """
    scale = None if expression is None else check_scale(expression)
    with Cells(data, layer=layer, raw=raw) as cells:
        features = {name: read_label_features(file) for name, file in as_pairs(label_features, "name=file.csv", "=")}
        controls = dict(as_pairs(set_control, "name=label", "="))
        summaries, pairs, drawn, combinations, findings = _study_labels(cells.obs, concepts, edges, features, controls)
        values, odd = study_expression(cells, scale)
        included = [include_genes] if isinstance(include_genes, str) else list(include_genes)
        panel, refused = study_panel(cells, genes, included, batch_key)
        training = estimate_training(len(cells), panel, values["nonzero"])
        found = sorted([*odd, *refused, *findings], key=lambda each: _ORDER.index(each.level))
        source = str(cells.path or "AnnData")
        return Report(
            source, len(cells), len(cells.genes), values, summaries, pairs, drawn, combinations, training, tuple(found)
        )


def warn_of_labels(
    obs: pd.DataFrame,
    concepts: Sequence[str],
    edges: Sequence[str | tuple[str, str]] = (),
    *,
    features: Mapping[str, LabelFeatures] | None = None,
    controls: Mapping[str, str] | None = None,
) -> None:
    """Warn of what `check` warns of in labels, concepts and graph, a `CausCellWarning` each.

    Parameters
    ----------
    obs
        Annotations of cells.
    concepts, edges
        As for `check`.
    features, controls
        Features of labels, and control labels of sets, by concept.
    """
    told = [
        each.text
        for each in _study_labels(obs, concepts, edges, features or {}, controls or {})[-1]
        if each.level == "warning"
    ]
    for text in told[:_MOST_WARNINGS]:
        warn(text)
    if len(told) > _MOST_WARNINGS:
        more = f"{len(told) - _MOST_WARNINGS} more of these labels: causcell check shows all"
        warn(more)


_Studied = tuple[tuple[ConceptSummary, ...], tuple[PairSummary, ...], tuple[str, ...], dict[str, int], list[Finding]]


def _study_labels(
    obs: pd.DataFrame,
    concepts: Sequence[str] | str,
    edges: Sequence[str | tuple[str, str]] | str,
    features: Mapping[str, LabelFeatures],
    controls: Mapping[str, str],
) -> _Studied:
    """Summarise concepts, pairs, edges and combinations, and gather the findings on them."""
    findings: list[Finding] = []
    kinds: dict[str, str | None] = {}
    for text in [concepts] if isinstance(concepts, str) else concepts:
        try:
            kinds |= [split_kind(text)]
        except ConceptError as error:
            findings.append(Finding("concept", "error", (text.partition(":")[0],), str(error)))
    names = list(kinds)
    for name in (*features, *controls):
        if name not in kinds:
            findings.append(
                Finding(
                    "concept",
                    "error",
                    (name,),
                    f"{name!r} has features or a control label, and is no "
                    f"concept; {suggest(name, names)}the concepts are {format_list(names)}",
                )
            )
    usable: list[Concept] = []
    codes = []
    summaries = []
    for name, kind in kinds.items():
        try:
            check_names([name])
            concept = read_concept(obs, name, kind, features=features.get(name), control=controls.get(name))
            found = ConceptSchema((concept,)).encode(obs[[name]])[:, 0]
        except ConceptError as error:
            findings.append(Finding("concept", "error", (name,), str(error)))
            continue
        counts = np.bincount(found[found >= 0], minlength=len(concept.labels))
        by_label = {label: int(count) for label, count in zip(concept.labels, counts, strict=True)}
        unlabelled = int((found < 0).sum())
        summaries.append(ConceptSummary(name, concept.kind, by_label, unlabelled))
        findings += label_findings(name, by_label, unlabelled) if concept.value is None else []
        findings += value_findings(concept, by_label, unlabelled)
        usable.append(concept)
        codes.append(found)
    drawn, errors = _read_edges(edges, names, usable, obs)
    findings += errors
    if not usable:
        return tuple(summaries), (), (), {}, findings
    table = np.stack(codes, axis=1)
    pairs, of_pairs = study_pairs(usable, table, drawn)
    combinations, unseen = study_combinations(usable, table, of_pairs)
    return tuple(summaries), pairs, tuple(f"{a}:{b}" for a, b in drawn), combinations, [*findings, *of_pairs, *unseen]


def _read_edges(
    edges: Sequence[str | tuple[str, str]] | str, names: Sequence[str], usable: Sequence[Concept], obs: pd.DataFrame
) -> tuple[list[tuple[str, str]], list[Finding]]:
    """Read edges, and find what is wrong with concepts and graph together; then there are no edges."""
    given: Iterable[Any] = [edges] if isinstance(edges, str) else edges
    try:
        if not names:
            raise ConceptError(f"no concept was named; name columns of labels, such as {format_list(_candidates(obs))}")
        texts = [edge if isinstance(edge, str) else ":".join(edge) for edge in given]
        pairs = as_pairs(texts, "parent:child", ":")
        by_name = {concept.name: concept for concept in usable}
        unusable = set(names) - set(by_name)
        kept = [pair for pair in pairs if not unusable & set(pair)]
        if by_name:
            check_names(list(by_name))
            ConceptSchema(
                tuple(by_name[name] for name in names if name in by_name), tuple(Edge(*pair) for pair in kept)
            )
        return kept, []
    except (ConceptError, ConfigurationError) as error:
        return [], [Finding("graph", "error", (), str(error))]


def _candidates(obs: pd.DataFrame) -> list[str]:
    """List the columns that could be concepts: text or categories, with two labels to fifty."""
    text = [name for name in obs.columns if obs[name].dtype.kind not in "fiucmM"]
    return [str(name) for name in text if 2 <= obs[name].nunique() <= 50]
