"""The concept graph of a training: the edges that its settings give or allow, and how causes act; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from causcell._internal.telling import warn
from causcell.concept_reading import split_kind
from causcell.concepts import ConceptSchema, as_pairs
from causcell.errors import ConfigurationError, format_list
from causcell_training.config import ModelConfig, TrainConfig

_UNTOLD = (
    "it keeps or drops edges and turns none, so directions are yours. Data alone tell a graph up to Markov equivalence "
    "(Verma & Pearl 1990); more only if causes act nonlinearly with additive noise on what is measured (Hoyer et al. "
    "2008; Peters et al. 2014), and embeddings are not measured. A common cause without labels looks like an edge. See "
    "how stable each edge is (causcell benchmark --folds 2 --seeds 5) and read docs/graph.md"
)
"""What a learned graph can't tell."""


def allowed_edges(config: TrainConfig) -> list[tuple[str, str]]:
    """List the edges that a training is given, or is allowed to learn, as pairs of parent and child.

    A graph to be learned for which no edge is given may have every edge from a concept to one named after it.

    Raises
    ------
    ConceptError
        An edge is not of the form ``PARENT:CHILD``.

    Examples
    --------
    >>> from causcell_training.config import load_config
    >>> allowed_edges(load_config(overrides={"concept": ["drug", "type", "state"], "model.graph": "learned"}))
    [('drug', 'type'), ('drug', 'state'), ('type', 'state')]
    """
    if config.model.graph == "learned" and not config.edge:
        return list(combinations([split_kind(each)[0] for each in config.concept], 2))
    return as_pairs(config.edge, "parent:child", ":")


def shape_graph(schema: ConceptSchema, config: ModelConfig) -> ConceptSchema:
    """Give a schema the graph and the mechanism of a model's settings.

    Raises
    ------
    ConfigurationError
        The graph is to be learned, or mechanisms to be nonlinear, and there is no edge.
    """
    if config.graph == "independent":
        schema = replace(schema, edges=())
    if config.graph == "learned" and not schema.edges:
        raise ConfigurationError(
            f"model.graph='learned' with one concept ({schema.names[0]}): there is no edge to learn; give a second "
            "concept, or leave model.graph out"
        )
    if config.mechanism == "nonlinear" and not schema.edges:
        raise ConfigurationError(
            f"model.mechanism='nonlinear' with model.graph={config.graph!r} and no edge: no concept has causes; give "
            "edges (PARENT:CHILD), or leave model.mechanism out"
        )
    return replace(schema, mechanism=config.mechanism)


def warn_of_learned_graph(config: TrainConfig) -> None:
    """Warn of what cells can't tell about a graph that is to be learned."""
    if config.model.graph == "learned":
        edges = format_list(":".join(pair) for pair in allowed_edges(config))
        warn(f"model.graph='learned' chooses among {edges}: {_UNTOLD}")


def describe_graph(schema: ConceptSchema, learned: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe a graph in a line: its edges, how causes act if not linearly, and what was learned of allowed edges.

    ``learned`` is the provenance's ``edges``, of a graph that was learned.
    """
    names = [f"{edge.parent}:{edge.child}" for edge in schema.edges]
    texts = [f"{name} (strength {learned[name]['strength']:.2f})" if name in learned else name for name in names]
    text = ", ".join(texts) or "none"
    if schema.mechanism != "linear":
        text += f"; {schema.mechanism} mechanisms"
    left_out = [name for name in learned if name not in names]
    return text + (f"; learned, without {', '.join(left_out)}" if left_out else "; learned" if learned else "")
