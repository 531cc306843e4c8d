"""The objective: every term of the paper's loss, weighted and logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell_training.config import ObjectiveConfig
from causcell_training.model import CausCell

_DISCRIMINATOR_WIDTH = 64


class Objective(nn.Module):
    """What training minimises, with the parameters that only training needs.

    Parameters
    ----------
    schema
        Concepts and graph.
    embedding
        k.
    labels
        Codes of the training cells, int [n x m]: their frequencies are what a discriminator that knows nothing says.
    config
        Weights.
    """

    def __init__(self, schema: ConceptSchema, embedding: int, labels: Tensor, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.names = schema.names
        self._independencies = independencies(schema)
        sizes = [len(concept.labels) for concept in schema.concepts]
        self.label_mean = nn.ParameterList(nn.Parameter(0.1 * torch.randn(size, embedding)) for size in sizes)
        self.label_logvar = nn.ParameterList(nn.Parameter(torch.zeros(size, embedding)) for size in sizes)
        self.discriminators = nn.ModuleList(
            nn.Sequential(
                nn.Linear(embedding, _DISCRIMINATOR_WIDTH),
                nn.SiLU(),
                nn.Linear(_DISCRIMINATOR_WIDTH, _DISCRIMINATOR_WIDTH),
                nn.SiLU(),
                nn.Linear(_DISCRIMINATOR_WIDTH, size),
            )
            for size in sizes
        )
        for i, size in enumerate(sizes):
            counts = torch.bincount(labels[labels[:, i] != UNLABELLED, i], minlength=size)
            self.register_buffer(f"frequency_{i}", counts / counts.sum(), persistent=False)

    def forward(self, model: CausCell, expression: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """All terms (scalars) for a batch of expression [B x G] and label codes [B x m], and their ``total``.

        ``total`` holds the discriminators' own loss too: its gradient reaches the discriminators alone, as the
        gradient of ``adversary`` reaches the encoder alone.
        """
        x = model.standardise(expression)
        genes = x.shape[1]
        mean, logvar = model.encoder(x)
        z = model.scm(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
        timestep = torch.randint(model.schedule.timesteps, (len(x),), device=x.device)
        losses = model.denoiser.losses(x, timestep, torch.randn_like(x), z)
        weight = {"reconstruction": gene_weight(model), "likelihood": torch.ones((), device=x.device)}
        terms = {
            **{name: (weight[name] * loss).mean() for name, loss in losses.items()},
            "classification": torch.stack(
                [masked_cross_entropy(logits, labels[:, i]) for i, logits in enumerate(model.label_logits(z))]
            ).sum(),
            "exogenous_kl": 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=(1, 2)).mean() / genes,
            "endogenous_kl": self._endogenous_kl(model, mean, logvar, labels) / genes,
            "adversary": self._adversary(mean[:, -1]),
            "independence": self._independence(mean, labels),
        }
        total = sum(
            (getattr(self.config, name) * term for name, term in terms.items()), torch.zeros((), device=x.device)
        )
        terms["discriminators"] = self._discriminators(mean[:, -1].detach(), labels)
        terms["total"] = total + terms["discriminators"]
        return terms

    def _endogenous_kl(self, model: CausCell, mean: Tensor, logvar: Tensor, labels: Tensor) -> Tensor:
        """KL(q(z_i|x) || p(z_i|y_i)) summed over concepts, mean over labelled cells, in nats."""
        z_mean = model.scm(mean)
        z_variance = model.scm.marginal_variance(logvar.exp())
        total = torch.zeros((), device=mean.device)
        for i in range(len(self.names)):
            labelled = labels[:, i] != UNLABELLED
            if not labelled.any():
                continue
            code = labels[labelled, i]
            prior_mean, prior_logvar = self.label_mean[i][code], self.label_logvar[i][code]
            variance = z_variance[labelled, i]
            distance = (variance + (z_mean[labelled, i] - prior_mean) ** 2) / prior_logvar.exp()
            total = total + 0.5 * (distance - 1 + prior_logvar - variance.log()).sum(dim=1).mean()
        return total

    def _adversary(self, unexplained: Tensor) -> Tensor:
        """KL(label frequencies || discriminator's answer), summed over concepts: zero where nothing can be read.

        Bounded below, unlike a discriminator's error maximised; the discriminators' weights are held.
        """
        total = torch.zeros((), device=unexplained.device)
        for i, discriminator in enumerate(self.discriminators):
            held = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
            log_answer = functional_call(discriminator, held, (unexplained,)).log_softmax(dim=1)
            frequency = self.get_buffer(f"frequency_{i}").expand_as(log_answer)
            total = total + F.kl_div(log_answer, frequency, reduction="batchmean")
        return total

    def _independence(self, mean: Tensor, labels: Tensor) -> Tensor:
        """How far a linear reader gets at labels of which exogenous embeddings should know nothing, in this batch.

        The sum over `independencies` of `explained_variance`, of the cells that carry all labels of a combination.
        """
        total = torch.zeros((), device=mean.device)
        for i, told, given in self._independencies:
            labelled = (labels[:, told] != UNLABELLED).all(dim=1)
            if labelled.sum() > 1:
                one_hot = self._combinations(labels[labelled], told)
                within = None if given is None else self._combinations(labels[labelled], (given,))
                total = total + explained_variance(mean[labelled, i], one_hot, within)
        return total

    def _combinations(self, labels: Tensor, concepts: Sequence[int]) -> Tensor:
        """Which combination of the concepts' labels each cell carries, one-hot [B x combinations]."""
        code = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
        for concept in concepts:
            code = code * len(self.label_mean[concept]) + labels[:, concept]
        return F.one_hot(code, math.prod(len(self.label_mean[concept]) for concept in concepts))

    def _discriminators(self, unexplained: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the discriminators, which read labels from the unexplained embedding [B x k]."""
        losses = [masked_cross_entropy(d(unexplained), labels[:, i]) for i, d in enumerate(self.discriminators)]
        return torch.stack(losses).sum()


def independencies(schema: ConceptSchema) -> list[tuple[int, tuple[int, ...], int | None]]:
    """What the structural causal model takes each exogenous embedding to know nothing of.

    Of the unexplained one that is the labels of all concepts; of eps_i those of i's ancestors, and, given the label of
    i, those of every other concept. Labels are taken by two: an embedding that tells treatment by another sign in each
    patient tells nothing of treatment on average, and yet keeps a patient's cells where they were under do(treatment).
    (Glioblastoma, five patients, size of do(panobinostat) over the real shift: labels one by one .40, by two .54.)

    Returns
    -------
    Triples: an embedding, concepts whose combination of labels it should not tell, the concept within whose labels.
    """
    concepts = range(len(schema.concepts))
    found: list[tuple[int, tuple[int, ...], int | None]] = []
    for i in range(schema.size):
        marginal = [j for j in concepts if i == len(concepts) or i in schema.descendants({j})]
        found += [(i, pair, None) for pair in combinations(marginal, min(2, len(marginal))) if pair]
        found += [(i, (i, j), i) for j in concepts if i < len(concepts) and j != i and j not in marginal]
    return found


def gene_weight(model: CausCell) -> Tensor:
    """Weight of each gene's reconstruction, [G], mean 1: its variance, so that errors count as on the log scale."""
    return model.deviation**2 / (model.deviation**2).mean()


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over labelled cells, from logits; zero where no cell is labelled."""
    labelled = labels != UNLABELLED
    return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / labelled.sum().clamp(min=1)


def explained_variance(embedding: Tensor, one_hot: Tensor, given: Tensor | None = None) -> Tensor:
    """Variance of labels that the best linear reader of an embedding explains: the sum of squared correlations (CCA).

    It does not depend on the embedding's scale, which an embedding could shrink to hide from a reader that learns by
    steps; and it is bounded by the number of labels less one. What the numbers of an embedding explain by chance, in a
    batch of few cells, is taken off (its mean over permutations of the labels): else an embedding would be asked to
    have few dimensions. A ridge of 0.02 on the correlation matrix keeps it finite.

    Parameters
    ----------
    embedding
        [B x k].
    one_hot
        [B x labels].
    given
        Labels within which both are compared, one-hot [B x labels]; none: among all cells.
    """
    with torch.autocast(embedding.device.type, enabled=False):  # at half precision a matrix can't be factored
        cells, numbers = embedding.shape
        groups = embedding.new_ones(cells, 1).float() if given is None else given.float()
        share = one_hot.float().mean(dim=0).clamp(min=1 / cells)
        x, y = (_within(each, groups) for each in (embedding.float(), one_hot.float() / share.sqrt()))
        x = x * (x.square().mean(dim=0) + 1e-8).rsqrt()
        correlation = x.T @ x / cells + 0.02 * torch.eye(numbers, device=x.device)
        factor, _ = torch.linalg.cholesky_ex(correlation)  # not finite where the embedding is not: training says so
        white = torch.linalg.solve_triangular(factor, x.T, upper=False)
        sizes = (groups.T @ each.square().sum(dim=1) for each in (white.T, y))
        chance = (math.prod(sizes) / (groups.sum(dim=0) - 1).clamp(min=1)).sum()
        return ((white @ y).square().sum() - chance) / cells**2


def _within(values: Tensor, groups: Tensor) -> Tensor:
    """Values [B x n] less the mean of their group (one-hot [B x groups])."""
    return values - groups @ ((groups.T @ values) / groups.sum(dim=0).clamp(min=1)[:, None])
