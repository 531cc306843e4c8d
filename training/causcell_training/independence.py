"""Labels that exogenous embeddings should not tell, by the structural causal model, and how much is read of them.

Labels are taken by two: an embedding that tells treatment by another sign in each patient tells nothing of treatment on
average, and yet keeps a patient's cells where they were under do(treatment). (Glioblastoma, five patients, size of
do(panobinostat) over the real shift: labels one by one .40, by two .54.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from causcell.concepts import UNLABELLED, ConceptSchema

_RIDGE = 0.02

_MOST_COMBINATIONS = 2**14
"""Combinations of labels that get a number each; of more, only those that a batch carries do."""


class Independence(NamedTuple):
    """Labels that the structural causal model takes an exogenous embedding to be independent of.

    Attributes
    ----------
    embedding
        Index of the concept whose exogenous embedding it is; m is the unexplained one.
    concepts
        Indices of one or two concepts: the combination of their labels is what the embedding should not tell.
    given
        Index of the concept within whose labels it should not; none: among all cells.
    """

    embedding: int
    concepts: tuple[int, ...]
    given: int | None


def independencies(schema: ConceptSchema) -> list[Independence]:
    """List the labels that each exogenous embedding should be independent of, by the structural causal model.

    For the unexplained embedding these are the labels of all concepts; for eps_i those of i's ancestors, and, given the
    label of i, those of every other concept.
    """
    concepts = range(len(schema.concepts))
    found: list[Independence] = []
    for i in range(schema.size):
        marginal = [j for j in concepts if i == len(concepts) or i in schema.descendants({j})]
        pairs = combinations(marginal, min(2, len(marginal)))
        found += [Independence(i, pair, None) for pair in pairs if pair]
        conditional = [j for j in concepts if i < len(concepts) and j != i and j not in marginal]
        found += [Independence(i, (i, j), i) for j in conditional]
    return found


def explained_variance(
    exogenous: Tensor, labels: Tensor, terms: Sequence[Independence], sizes: Sequence[int]
) -> Tensor:
    """Measure the variance of labels that the best linear probe of each embedding explains, summed over terms.

    The sum of squared canonical correlations (Hotelling 1936) of embedding and labels, both less their means within the
    labels of ``given``. It does not depend on the embedding's scale, which an embedding could shrink to hide from a
    probe that learns by steps; and it is bounded by the number of labels less one. What the numbers of an embedding
    explain by chance, in a batch of few cells, is taken off (its mean over permutations of the labels): else an
    embedding would be asked to have few dimensions. A ridge of 0.02 on the correlation matrix C keeps it finite.

    With x the standardised embedding and y the labels' indicators over the square root of their frequencies, it is the
    trace of C^-1 T, T = x^T y y^T x less what chance makes of it, summed over the terms of one embedding.

    Parameters
    ----------
    exogenous
        Exogenous embeddings, float [B x M x k].
    labels
        Label codes, int64 [B x m]; -1 is unlabelled. A term is over the cells that carry all of its labels.
    terms
        What should not be told; a term's ``concepts`` include ``given``.
    sizes
        Number of labels of each concept.

    Returns
    -------
    Tensor
        Explained variance, a scalar; a little below zero where less is explained than by chance.
    """
    sets = _Sets.of(labels, terms, sizes, exogenous.dtype)
    if not sets.places:
        return exogenous.new_zeros(())
    x = exogenous.index_select(1, sets.embeddings).transpose(0, 1) * sets.counted[:, :, None]
    within, size = sets.within, torch.bincount(sets.within.flatten(), sets.counted.flatten()).clamp(min=1)
    means = _sum_by(within, len(size), x) / size[:, None]
    x = x - means.index_select(0, within.flatten()).view_as(x) * sets.counted[:, :, None]
    x = x * (x.square().sum(dim=1) / sets.cells[:, None] + 1e-8).rsqrt()[:, None]
    asked, codes = x.index_select(0, sets.set_of), sets.codes
    counted = sets.counted[sets.set_of]
    frequency = torch.bincount(codes.flatten(), counted.flatten(), minlength=sets.places[-1].stop).clamp(min=1)
    inverse = sets.cells[sets.set_of, None] / frequency[codes]
    alike = frequency[codes] / size[within[sets.set_of]]  # share of the cells within the same label of ``given``
    chance = _sum_by(within[sets.set_of], len(size), (counted * (1 - alike) * inverse)[:, :, None])[:, 0]
    weight = (chance / (size - 1).clamp(min=1))[within]
    sums = _sum_by(codes, sets.places[-1].stop, asked * inverse.sqrt()[:, :, None])
    told = torch.stack([sums[place].T @ sums[place] for place in sets.places])
    ridge = _RIDGE * torch.eye(x.shape[2], device=x.device, dtype=x.dtype)
    correlation = x.mT @ x / sets.cells[:, None, None] + ridge
    told = (told - (x * weight[:, :, None]).mT @ x) / sets.cells[:, None, None] ** 2
    with torch.no_grad():
        factor, _ = torch.linalg.cholesky_ex(correlation)  # not finite where the embedding is not: training says so
        inverse_correlation = torch.cholesky_inverse(factor)
        slope = inverse_correlation @ told @ inverse_correlation
    # d tr(C^-1 T) = tr(C^-1 dT) - tr(C^-1 T C^-1 dC), without going back through the factor; the second part is zero
    return (inverse_correlation * told).sum() - (slope * (correlation - correlation.detach())).sum()


class _Sets(NamedTuple):
    """Cells that terms are taken over: S sets, each of an embedding, whose moments all of its terms share; T terms.

    Attributes
    ----------
    embeddings
        Embedding of each set, int64 [S].
    counted
        1 where a cell belongs to a set, else 0, [S x B].
    cells
        Number of a set's cells, [S].
    within
        Code of the label of ``given``, with a set's codes behind those of the set before, int64 [S x B].
    set_of
        Set of each term, int64 [T]; a set's terms follow each other.
    codes
        Code of each cell's combination of labels, with a term's codes behind those of the term before, int64 [T x B].
    places
        Codes of each set.
    """

    embeddings: Tensor
    counted: Tensor
    cells: Tensor
    within: Tensor
    set_of: Tensor
    codes: Tensor
    places: list[slice]

    @classmethod
    def of(cls, labels: Tensor, terms: Sequence[Independence], sizes: Sequence[int], dtype: torch.dtype) -> _Sets:
        """Find the sets: one for an embedding and ``given``, and, unless all cells are labelled, for each term."""
        known = labels != UNLABELLED
        together = len(labels) > 1 and bool(known.all())
        groups: dict[tuple[int, int | None, int], list[Independence]] = {}
        for i, term in enumerate(terms):
            if together or int(known[:, term.concepts].all(dim=1).sum()) > 1:
                groups.setdefault((term.embedding, term.given, 0 if together else i), []).append(term)
        counted, within, codes, set_of = [], [], [], []
        places: list[slice] = []
        first_code = first_within = 0
        for (_, given, _), asked in groups.items():
            counted.append(known[:, asked[0].concepts].all(dim=1))
            within.append(first_within + (labels[:, given].clamp(min=0) if given is not None else 0 * labels[:, 0]))
            first_within += 1 if given is None else sizes[given]
            begin = first_code
            for term in asked:
                code, count = encode_combinations(labels.clamp(min=0), term.concepts, sizes)
                codes.append(first_code + code)
                set_of.append(len(places))
                first_code += count
            places.append(slice(begin, first_code))
        if not groups:
            return cls(labels, labels, labels, labels, labels, labels, [])
        members = torch.stack(counted).to(dtype)
        return cls(
            torch.tensor([embedding for embedding, _, _ in groups], device=labels.device),
            members,
            members.sum(dim=1),
            torch.stack(within),
            torch.tensor(set_of, device=labels.device),
            torch.stack(codes),
            places,
        )


def encode_combinations(labels: Tensor, concepts: Sequence[int], sizes: Sequence[int]) -> tuple[Tensor, int]:
    """Encode the combination of the concepts' labels that each cell carries: codes, int64 [B], and their number."""
    code, count = labels[:, concepts[0]], sizes[concepts[0]]
    for concept in concepts[1:]:
        code, count = code * sizes[concept] + labels[:, concept], count * sizes[concept]
    if count > _MOST_COMBINATIONS:  # of which the batch carries few
        carried, code = code.unique(return_inverse=True)
        count = len(carried)
    return code, count


def _sum_by(code: Tensor, count: int, values: Tensor) -> Tensor:
    """Sum values [S x B x n] by code [S x B], [count x n]."""
    flat, zeros = values.flatten(0, 1), values.new_zeros(count, values.shape[2])
    if values.is_cuda:  # where adding by index has another order of sums each time
        return zeros.index_put((code.flatten(),), flat, accumulate=True)
    return zeros.index_add(0, code.flatten(), flat)
