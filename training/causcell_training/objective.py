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

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell_training.config import ObjectiveConfig
from causcell_training.independence import explained_variance, independencies
from causcell_training.model import CausCell

_DISCRIMINATOR_WIDTH = 64


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

    first_label: Tensor
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
        self.register_buffer("first_label", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
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
        terms = {
            **{
                name: _average(loss, gene_weight(model) if name == "reconstruction" else None)
                for name, loss in losses.items()
            },
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
        z_mean, z_variance = (each[:, : len(self.names)] for each in model.scm.posterior(mean, logvar.exp()))
        if values is None:
            known = labels != UNLABELLED
            code = (labels.clamp(min=0) + self.first_label).flatten()
            tables = (torch.cat([*table]) for table in (model.label_mean, self.label_logvar))
            prior_mean, prior_logvar = (each.index_select(0, code).view_as(z_mean) for each in tables)
        else:
            known = torch.stack([values[:, place].isfinite().all(dim=1) for place in self._value_slices], dim=1)
            prior_mean, prior_logvar = model.prior_of_read(values)
        distance = (z_variance + (z_mean - prior_mean) ** 2) / prior_logvar.exp()
        divergence = 0.5 * (distance - 1 + prior_logvar - z_variance.log()).sum(dim=2)
        return ((divergence * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)).sum()

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
        """Sum (7) over `independencies`, from exogenous embeddings mu [B x M x k]."""
        taken = (labels != UNLABELLED).any(dim=1)  # without places of earlier cells that none has taken yet
        with torch.autocast(mean.device.type, enabled=False):  # at half precision a matrix can't be factored
            return explained_variance(mean[taken].float(), labels[taken], self._independencies, self._sizes)

    def _discriminators(self, unexplained: Tensor, labels: Tensor) -> Tensor:
        """Sum (9) over concepts: the discriminators read labels from the unexplained embedding [B x k]."""
        losses = [masked_cross_entropy(d(unexplained), labels[:, i]) for i, d in enumerate(self.discriminators)]
        return torch.stack(losses).sum()


def _average(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Average a loss over cells and genes [B x G], genes weighted [G]; neither it nor its gradient makes a matrix."""
    total = loss.sum() if weight is None else (loss.sum(dim=0) * weight).sum()  # no product that is lowered on a GPU
    return total / loss.numel()


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
