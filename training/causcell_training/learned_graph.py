"""A learned graph: the edges that were found become a model's own, and how much each carries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from causcell.concepts import ConceptSchema, Edge
from causcell_training.model import CausCell


@torch.no_grad()
def keep_found_edges(model: CausCell) -> tuple[CausCell, dict[str, dict[str, Any]]]:
    """Leave out the edges whose gates are shut, and multiply the others' gates into weights.

    Parameters
    ----------
    model
        A model whose graph was learned, in evaluation mode; a model without gates is returned as it is.

    Returns
    -------
    CausCell
        A model that computes the same, without gates, its edges those that were found.
    dict
        Of each allowed edge, by ``PARENT:CHILD``, the ``probability`` that it is open and whether it was ``found``;
        empty for a model without gates.
    """
    gates, old = model.scm.gates, model.scm
    if gates is None:
        return model, {}
    values, schema = gates.values(), model.schema
    kept = [place for place, value in enumerate(values.tolist()) if value > 0]
    edges = tuple(
        Edge(schema.edges[place].parent, schema.edges[place].child, float(old.weights[place] * values[place]))
        for place in kept
    )
    with torch.random.fork_rng(devices=[]):  # first weights are random, and the stream is the caller's
        pruned = CausCell(replace(schema, edges=edges), model.preprocessing, model.config)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("scm.")}
    pruned.load_state_dict(state | {f"scm.{name}": tensor for name, tensor in pruned.scm.state_dict().items()})
    for key, mechanism in pruned.scm.mechanisms.items():
        mechanism.load_state_dict(_select_inputs(old.mechanisms[key].state_dict(), schema, int(key), values))
    found = {
        f"{edge.parent}:{edge.child}": {"found": place in kept, "probability": round(float(probability), 4)}
        for place, (edge, probability) in enumerate(zip(schema.edges, gates.probabilities(), strict=True))
    }
    return pruned.eval(), found


def _select_inputs(
    state: dict[str, torch.Tensor], schema: ConceptSchema, child: int, gates: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Select a mechanism's weights without the columns of parents whose gates are shut, others' times their gates."""
    places = [n for n, edge in enumerate(schema.edges) if edge.child == schema.names[child]]
    columns = state["layers.0.weight"].unflatten(1, (len(places), -1))
    kept = [gates[place] * columns[:, n] for n, place in enumerate(places) if gates[place] > 0]
    return state | {"layers.0.weight": torch.cat(kept, dim=1)}


@torch.no_grad()
def edge_strengths(model: CausCell, endogenous: torch.Tensor) -> dict[str, float]:
    """Measure how much of a concept's embedding each edge carries.

    Parameters
    ----------
    model
        A trained model.
    endogenous
        Endogenous embeddings of cells, [n x M x k].

    Returns
    -------
    dict
        By ``PARENT:CHILD`` the mean squared change of what the parents add to the child's embedding when the parent's
        embedding is its mean over the cells, over the variance of the child's embedding. It does not change with the
        scale of embeddings, as a weight does.
    """
    found: dict[str, float] = {}
    exogenous = model.scm.exogenous(endogenous)
    for edge in model.schema.edges:
        parent, child = model.schema.index(edge.parent), model.schema.index(edge.child)
        held = endogenous.clone()
        held[:, parent] = endogenous[:, parent].mean(dim=0)
        carried = model.scm.exogenous(held)[:, child] - exogenous[:, child]
        variance = endogenous[:, child].var(dim=0, correction=0).sum()
        found[f"{edge.parent}:{edge.child}"] = round(float(carried.square().sum(dim=1).mean() / variance), 4)
    return found
