"""The objective: every term of the loss, weighted and logged.

The terms are those of Gao et al. (Nature Communications 2025, s41467-025-62008-1), and (7), which is this project's.
Shapes: B cells, G panel genes, m observed concepts, M = m + 1 with the unexplained one last, k numbers per concept.
With q(eps | x) = N(mu, sigma^2), z = A^T z + eps, total effects B = (I - A^T)^-1, standardised expression x, labels y:

::

    (1) reconstruction    mean over cells and genes of w_g (x0(x_t, t, z) - x)^2, w_g ~ variance of gene g
    (2) likelihood        mean over cells and genes of -(1 - abar_t) log p(x | x_t, z), for heads that have one
    (3) classification    sum_i cross-entropy(y_i, classifier_i(z_i)); of values: `causcell_training.kinds.readers`
    (4) exogenous_kl      KL(q(eps | x) || N(0, I)) / G
    (5) endogenous_kl     sum_i KL(q(z_i | x) || N(m_i[y_i], v_i[y_i])) / G,  var q(z_i | x) = sum_j B_ij^2 sigma_j^2;
                          nonlinear: of q(z_i | x, z_parents) at a draw of the parents, see `StructuralCausalModel`
    (6) adversary         sum_i KL(frequency of y_i || discriminator_i(mu_unexplained))
    (7) independence      sum over `independencies` of `explained_variance`
    (8) edges             sum over allowed edges of the probability that each is open, of learned graphs alone
    (9) discriminators    sum_i cross-entropy(y_i, discriminator_i(mu_unexplained)), the adversary's opponent

What is decoded, z in (1) and (2), is informed by the cells' known labels: `causcell_training.model.CausCell.inform`.
All other terms are of embeddings read from expression alone; and (7) is over the cells of earlier batches too.

The loss is (9) plus the terms (1) to (8), each times its weight in `ObjectiveConfig`. Where concepts have values
v_i, their prior of (5) is a network's Gaussian at v_i (`causcell_training.kinds.priors`). Cells without a label of
concept i are left out of every term that reads y_i. Log-likelihoods are up to a constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell_training.config import ObjectiveConfig
from causcell_training.model import CausCell

_DISCRIMINATOR_WIDTH = 64

_MOST_COMBINATIONS = 2**14
"""Combinations of labels that get a column each; of more, only those that a batch carries do."""


class Objective(nn.Module):
    """Training objective, with the parameters that only training needs: label priors and discriminators.

    Parameters
    ----------
    schema
        Concepts and graph.
    embedding
        Numbers per concept, k.
    labels
        Label codes of the training cells, int [n x m]: a discriminator that knows nothing answers their frequencies.
    config
        Weight of each term.
    """

    earlier_mean: Tensor
    earlier_labels: Tensor

    def __init__(self, schema: ConceptSchema, embedding: int, labels: Tensor, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.names = schema.names
        self._independencies = independencies(schema)
        self._sizes = sizes = [len(concept.labels) for concept in schema.concepts]
        self.label_logvar = nn.ParameterList(
            nn.Parameter(torch.zeros(size, embedding)) for size in (() if schema.has_values else sizes)
        )
        self._value_slices = schema.value_slices
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
        earlier = config.independence_cells
        self.register_buffer("earlier_mean", torch.zeros(earlier, schema.size, embedding))
        self.register_buffer("earlier_labels", torch.full((earlier, len(sizes)), UNLABELLED))

    def forward(
        self, model: CausCell, expression: Tensor, labels: Tensor, values: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute every term for a batch, and the loss.

        Parameters
        ----------
        model
            The model in training.
        expression
            Expression on the log scale, float [B x G].
        labels
            Label codes, int64 [B x m]; -1 is unlabelled.
        values
            Values of all concepts side by side, float [B x V], NaN for unlabelled, where concepts have any.

        Returns
        -------
        dict
            Terms (1) to (9) of `causcell_training.objective`, scalars by name, and their weighted sum ``total``. The
            gradient of ``discriminators`` reaches the discriminators alone, that of ``adversary`` the encoder alone.
        """
        if model.scm.gates is None:
            return self._terms(model, expression, labels, values)
        with model.scm.gates.draw(len(expression)):
            return self._terms(model, expression, labels, values)

    def _terms(self, model: CausCell, expression: Tensor, labels: Tensor, values: Tensor | None) -> dict[str, Tensor]:
        """Compute every term for a batch, at the edges' gates as they are drawn."""
        x = model.standardise(expression)
        genes = x.shape[1]
        mean, logvar = model.encoder(x)
        exogenous = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        sampled = model.scm(exogenous)
        z = model.scm(model.inform(exogenous, labels, values))
        timestep = torch.randint(model.schedule.timesteps, (len(x),), device=x.device)
        losses = model.denoiser.losses(x, timestep, torch.randn_like(x), z)
        weight = {"reconstruction": gene_weight(model), "likelihood": torch.ones((), device=x.device)}
        terms = {
            **{name: (weight[name] * loss).mean() for name, loss in losses.items()},
            "classification": self._classification(model, sampled, labels, values),
            "exogenous_kl": 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=(1, 2)).mean() / genes,
            "endogenous_kl": self._endogenous_kl(model, mean, logvar, labels, values) / genes,
            "adversary": self._adversary(mean[:, -1]),
            "independence": self._independence(*self._with_earlier_cells(mean, labels)),
        }
        if model.scm.gates is not None:
            terms["edges"] = model.scm.gates.probabilities().sum()
        total = sum(
            (getattr(self.config, name) * term for name, term in terms.items()), torch.zeros((), device=x.device)
        )
        terms["discriminators"] = self._discriminators(mean[:, -1].detach(), labels)
        terms["total"] = total + terms["discriminators"]
        return terms

    def _classification(self, model: CausCell, endogenous: Tensor, labels: Tensor, values: Tensor | None) -> Tensor:
        """Sum (3) over concepts, each averaged over its labelled cells; see `causcell_training.kinds`."""
        if values is None:
            told = model.label_logits(endogenous)
            return torch.stack([masked_cross_entropy(logits, labels[:, i]) for i, logits in enumerate(told)]).sum()
        total = torch.zeros((), device=values.device)
        for i, (reader, place) in enumerate(zip(model.readers, self._value_slices, strict=True)):
            known = values[:, place].isfinite().all(dim=1)
            loss = reader.loss(endogenous[:, i], labels[:, i], values[:, place])
            total = total + loss.sum() / known.sum().clamp(min=1)
        return total

    def _endogenous_kl(
        self, model: CausCell, mean: Tensor, logvar: Tensor, labels: Tensor, values: Tensor | None
    ) -> Tensor:
        """Sum (5) over concepts, each averaged over its labelled cells, from mu and log sigma^2 [B x M x k]."""
        z_mean, z_variance = model.scm.posterior(mean, logvar.exp())
        total = torch.zeros((), device=mean.device)
        prior = None if values is None else model.prior(values)
        for i in range(len(self.names)):
            labelled = labels[:, i] != UNLABELLED
            if values is not None:
                labelled = values[:, self._value_slices[i]].isfinite().all(dim=1)
            if not labelled.any():
                continue
            if prior is None:
                code = labels[labelled, i]
                prior_mean, prior_logvar = model.label_mean[i][code], self.label_logvar[i][code]
            else:
                prior_mean, prior_logvar = (each[labelled, i] for each in prior)
            variance = z_variance[labelled, i]
            distance = (variance + (z_mean[labelled, i] - prior_mean) ** 2) / prior_logvar.exp()
            total = total + 0.5 * (distance - 1 + prior_logvar - variance.log()).sum(dim=1).mean()
        return total

    def _adversary(self, unexplained: Tensor) -> Tensor:
        """Sum (6) over concepts from the unexplained embedding [B x k]; zero where no label can be read from it.

        It is bounded below, unlike a discriminator's error maximised. The discriminators' weights are held.
        """
        total = torch.zeros((), device=unexplained.device)
        for i, discriminator in enumerate(self.discriminators):
            held = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
            log_answer = functional_call(discriminator, held, (unexplained,)).log_softmax(dim=1)
            frequency = self.get_buffer(f"frequency_{i}").expand_as(log_answer)
            total = total + F.kl_div(log_answer, frequency, reduction="batchmean")
        return total

    def _with_earlier_cells(self, mean: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's exogenous embeddings and labels followed by those of batches before it, and keep it.

        In a batch of few cells, chance explains more of the labels than what is looked for; taking its mean off the
        value leaves its noise in the gradient. Earlier cells have no gradient; that of the batch is made larger by as
        much, so that a weight means the same whatever the number of cells.
        """
        room, cells = len(self.earlier_mean), len(mean)
        if room <= cells:
            return mean, labels
        own = mean.detach().float()
        scaled = own + room / cells * (mean - mean.detach())
        together = torch.cat([scaled, self.earlier_mean[: room - cells]])
        labels_together = torch.cat([labels, self.earlier_labels[: room - cells]])
        self.earlier_mean = torch.cat([own, self.earlier_mean])[:room]
        self.earlier_labels = torch.cat([labels, self.earlier_labels])[:room]
        return together, labels_together

    def _independence(self, mean: Tensor, labels: Tensor) -> Tensor:
        """Sum (7) over `independencies`, each over the cells of the batch that carry all labels of its combination.

        It is how much a linear probe reads of labels that exogenous embeddings mu [B x M x k] should not tell.
        """
        total = torch.zeros((), device=mean.device)
        for embedding, concepts, given in self._independencies:
            labelled = (labels[:, concepts] != UNLABELLED).all(dim=1)
            if labelled.sum() > 1:
                one_hot = self._encode_combinations(labels[labelled], concepts)
                within = None if given is None else self._encode_combinations(labels[labelled], (given,))
                total = total + explained_variance(mean[labelled, embedding], one_hot, within)
        return total

    def _encode_combinations(self, labels: Tensor, concepts: Sequence[int]) -> Tensor:
        """Encode the combination of the concepts' labels that each cell carries, one-hot int64 [B x combinations]."""
        code = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
        for concept in concepts:
            code = code * self._sizes[concept] + labels[:, concept]
        count = math.prod(self._sizes[concept] for concept in concepts)
        if count > _MOST_COMBINATIONS:  # of which the batch carries few: the others' columns would be zero
            carried, code = code.unique(return_inverse=True)
            count = len(carried)
        return F.one_hot(code, count)

    def _discriminators(self, unexplained: Tensor, labels: Tensor) -> Tensor:
        """Sum (9) over concepts: the discriminators read labels from the unexplained embedding [B x k]."""
        losses = [masked_cross_entropy(d(unexplained), labels[:, i]) for i, d in enumerate(self.discriminators)]
        return torch.stack(losses).sum()


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
    label of i, those of every other concept. Labels are taken by two: an embedding that tells treatment by another sign
    in each patient tells nothing of treatment on average, and yet keeps a patient's cells where they were under
    do(treatment). (Glioblastoma, five patients, size of do(panobinostat) over the real shift: labels one by one .40, by
    two .54.)
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


def gene_weight(model: CausCell) -> Tensor:
    """Weigh each gene's squared error by its variance, so that errors count as on the log scale: [G], mean 1."""
    return model.deviation**2 / (model.deviation**2).mean()


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over labelled cells; zero where no cell is labelled.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities, [B x labels].
    labels
        Label codes, int64 [B]; -1 is unlabelled.
    """
    labelled = labels != UNLABELLED
    return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / labelled.sum().clamp(min=1)


def explained_variance(embedding: Tensor, one_hot: Tensor, given: Tensor | None = None) -> Tensor:
    """Measure the variance of labels that the best linear probe of an embedding explains.

    The sum of squared canonical correlations (Hotelling 1936) of embedding and labels. It does not depend on the
    embedding's scale, which an embedding could shrink to hide from a probe that learns by steps; and it is bounded by
    the number of labels less one. What the numbers of an embedding explain by chance, in a batch of few cells, is taken
    off (its mean over permutations of the labels): else an embedding would be asked to have few dimensions. A ridge of
    0.02 on the correlation matrix keeps it finite.

    Parameters
    ----------
    embedding
        Embeddings of one concept, float [B x k].
    one_hot
        Labels, one-hot [B x labels].
    given
        Labels within which both are compared, one-hot [B x labels]; none: among all cells.

    Returns
    -------
    Tensor
        Explained variance, a scalar; a little below zero where less is explained than by chance.
    """
    with torch.autocast(embedding.device.type, enabled=False):  # at half precision a matrix can't be factored
        cells, numbers = embedding.shape
        groups = embedding.new_ones(cells, 1).float() if given is None else given.float()
        share = one_hot.float().mean(dim=0).clamp(min=1 / cells)
        x, y = (_centre_within(each, groups) for each in (embedding.float(), one_hot.float() / share.sqrt()))
        x = x * (x.square().mean(dim=0) + 1e-8).rsqrt()
        correlation = x.T @ x / cells + 0.02 * torch.eye(numbers, device=x.device)
        factor, _ = torch.linalg.cholesky_ex(correlation)  # not finite where the embedding is not: training says so
        white = torch.linalg.solve_triangular(factor, x.T, upper=False)
        sizes = (groups.T @ each.square().sum(dim=1) for each in (white.T, y))
        chance = (math.prod(sizes) / (groups.sum(dim=0) - 1).clamp(min=1)).sum()
        explained: Tensor = ((white @ y).square().sum() - chance) / cells**2
        return explained


def _centre_within(values: Tensor, groups: Tensor) -> Tensor:
    """Subtract from values [B x n] the mean of their group (one-hot [B x groups])."""
    return values - groups @ ((groups.T @ values) / groups.sum(dim=0).clamp(min=1)[:, None])
