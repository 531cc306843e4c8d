"""CausCell: encoder, structural causal model and denoiser as one module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.diffusion.schedule import NoiseSchedule
from causcell.preprocessing import Preprocessing
from causcell_training.config import ModelConfig
from causcell_training.denoiser import Denoiser
from causcell_training.encoder import Encoder
from causcell_training.kinds.priors import Prior, make_prior
from causcell_training.kinds.readers import NumberReader, Reader, make_reader
from causcell_training.scm import StructuralCausalModel


class CausCell(nn.Module):
    """Causal disentanglement model: encoder, structural causal model, denoiser and concept classifiers.

    Gao et al. (bioRxiv 2024.12.11.628077; Nature Communications 2025, s41467-025-62008-1). Shapes: B cells, G panel
    genes, m observed concepts, M = m + 1 with the unexplained one last, k numbers per concept. Expression is on the log
    scale; the module standardises inside.

    Parameters
    ----------
    schema
        Concepts and graph.
    preprocessing
        Gene panel and standardisation.
    config
        Shapes of the networks.

    Attributes
    ----------
    scm
        The structural causal model.
    trained_scm
        That which the encoder was trained with, where mechanisms were fitted since; else none. See
        `causcell_training.fitted_mechanisms`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from causcell.concepts import Concept, ConceptSchema, Edge
    >>> from causcell.preprocessing import Preprocessing
    >>> from causcell_training.config import ModelConfig
    >>> concepts = (Concept("stim", ("ctrl", "IFN")), Concept("state", ("a", "b")))
    >>> schema = ConceptSchema(concepts, (Edge("stim", "state"),))
    >>> numbers = np.ones(5, dtype=np.float32)
    >>> preprocessing = Preprocessing(tuple("ABCDE"), "log1p", (), numbers, numbers)
    >>> model = CausCell(schema, preprocessing, ModelConfig(embedding=8)).eval()
    >>> exogenous, logvar = model.encode(torch.rand(4, 5))
    >>> endogenous = model.scm(exogenous)
    >>> endogenous.shape, model.mean_estimate(endogenous).shape
    (torch.Size([4, 3, 8]), torch.Size([4, 5]))
    """

    mean: Tensor
    deviation: Tensor
    target_scale: Tensor
    target_shift: Tensor
    target_logvar: Tensor

    def __init__(self, schema: ConceptSchema, preprocessing: Preprocessing, config: ModelConfig) -> None:
        super().__init__()
        genes = len(preprocessing.genes)
        self.preprocessing = preprocessing
        self.config = config
        self.schedule = NoiseSchedule(config.schedule, config.timesteps)
        self.register_buffer("mean", torch.from_numpy(np.array(preprocessing.mean)), persistent=False)
        self.register_buffer("deviation", torch.from_numpy(np.array(preprocessing.deviation)), persistent=False)
        self.encoder = Encoder(
            genes,
            schema.size,
            config.embedding,
            components=config.components,
            width=config.encoder_width,
            layers=config.encoder_layers,
            dropout=config.encoder_dropout,
        )
        mechanism = (config.embedding, config.mechanism_width) if config.mechanism == "nonlinear" else None
        self.scm = StructuralCausalModel(schema, learned=config.edge_weights == "learned", mechanism=mechanism)
        self.trained_scm: StructuralCausalModel | None = None
        self.denoiser = Denoiser(
            -self.mean / self.deviation,
            schema.size,
            config.embedding,
            width=config.width,
            blocks=config.blocks,
            heads=config.heads,
            head=config.head,
            schedule=self.schedule,
            last_norm=config.last_norm,
        )
        self.classifiers = nn.ModuleList(make_reader(config.embedding, c) for c in schema.concepts)
        plain, valued = ((), schema.concepts) if schema.has_values else (schema.concepts, ())
        self.label_mean = nn.ParameterList(
            nn.Parameter(0.1 * torch.randn(len(c.labels), config.embedding)) for c in plain
        )
        self._names, self._value_slices = schema.names, schema.value_slices
        self.priors = nn.ModuleList(make_prior(config.embedding, c) for c in valued)
        if schema.has_values:
            concepts = len(schema.concepts)
            self.register_buffer("target_scale", torch.ones(concepts))
            self.register_buffer("target_shift", torch.zeros(concepts, config.embedding))
            self.register_buffer("target_logvar", torch.zeros(concepts, config.embedding))

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph, the edges with their weights as they are now."""
        return self.scm.schema

    def standardise(self, expression: Tensor) -> Tensor:
        """Standardise expression [B x G] from the log scale: less the training mean, over the training deviation."""
        return (expression - self.mean) / self.deviation

    def encode(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Encode expression (log scale, [B x G]): mean and log-variance of q(eps | x), each [B x M x k]."""
        mean, logvar = self.encoder(self.standardise(expression))
        return self.recentre_exogenous(mean), logvar

    def recentre_exogenous(self, mean: Tensor) -> Tensor:
        """Move what the encoder gives, [B x M x k], by what mechanisms that were fitted since it was trained changed.

        See `causcell_training.fitted_mechanisms`; endogenous embeddings are those that the encoder was trained to give.
        """
        return mean if self.trained_scm is None else self.scm.exogenous(self.trained_scm(mean))

    def label_logits(self, endogenous: Tensor) -> list[Tensor]:
        """Read endogenous embeddings [B x M x k]: logits of each concept's labels, [B x labels] each."""
        return [reader.label_logits(endogenous[:, i]) for i, reader in enumerate(self.readers)]

    @property
    def readers(self) -> list[Reader]:
        """Readers of each concept's value from its embedding."""
        return list(self.classifiers)  # type: ignore[arg-type]

    @property
    def number_names(self) -> list[str]:
        """Names of the ordinal and continuous concepts whose numbers are read; see `numbers`."""
        named = zip(self._names, self.readers, strict=True)
        return [name for name, reader in named if isinstance(reader, NumberReader)]

    def numbers(self, endogenous: Tensor) -> dict[str, Tensor]:
        """Read the standardised numbers, [B x 1], of ordinal and continuous concepts by name, from [B x M x k]."""
        named = zip(self._names, self.readers, strict=True)
        return {
            name: reader.number(endogenous[:, i])
            for i, (name, reader) in enumerate(named)
            if isinstance(reader, NumberReader)
        }

    def prior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return p(z_i | value of concept i) of a model whose concepts have values, as interventions take it.

        It is of embeddings that are informed of the value, which is what is decoded: that of `prior_of_read`, stretched
        and moved as `causcell_training.target_priors` fits it when training has ended.

        Parameters
        ----------
        values
            Values of all concepts side by side, float [B x V]; NaN is read as 0.

        Returns
        -------
        tuple of Tensor
            Mean and log-variance, [B x m x k] each.
        """
        mean, logvar = self.prior_of_read(values)
        return self.target_scale[:, None] * mean + self.target_shift, logvar + self.target_logvar

    def prior_of_read(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return p(z_i | value of concept i) of embeddings read from expression alone, the KL's target; as `prior`."""
        parts = [prior(values[:, place].nan_to_num()) for prior, place in self._priors()]
        return torch.stack([mean for mean, _ in parts], dim=1), torch.stack([logvar for _, logvar in parts], dim=1)

    def _priors(self) -> list[tuple[Prior, slice]]:
        return list(zip(self.priors, self._value_slices, strict=True))  # type: ignore[arg-type]

    def inform(self, exogenous: Tensor, labels: Tensor, values: Tensor | None = None) -> Tensor:
        """Tell exogenous embeddings what the cells' known labels are: from q(eps | x) to q(eps | x, y).

        The posterior q(z_i | x) of a concept's embedding is a mixture over the labels that the cell may carry. The
        component of its known label y_i is

            z_i' = z_i + m_i[y_i] - sum_l p_i(l | z_i) m_i[l],    eps' = (I - A^T) z',

        with p_i the softmax of the concept's classifier at z_i and m_i the means of p(z_i | y_i). The paper's
        posterior is q(eps, z | x, y) (Gao et al., the inference model). Embeddings of unlabelled concepts stay. Where
        concepts have values v_i, it is z_i + m_i(v_i) less m_i at what is read: the number, the members' probabilities.

        Parameters
        ----------
        exogenous
            Exogenous embeddings eps read from expression alone, float [B x M x k].
        labels
            Label codes, int64 [B x m]; -1 is unlabelled. A model whose concepts have values reads ``values`` alone.
        values
            Values of all concepts side by side, float [B x V]; NaN is unlabelled.

        Returns
        -------
        Tensor
            Exogenous embeddings eps', [B x M x k]; what they were in a model whose ``abduction`` is ``expression``.
        """
        if self.config.abduction == "expression":
            return exogenous
        z = list((endogenous := self.scm(exogenous)).unbind(dim=1))
        if values is not None:
            for i, ((prior, place), reader) in enumerate(zip(self._priors(), self.readers, strict=True)):
                known = values[:, place].isfinite().all(dim=1, keepdim=True)
                told = prior(values[:, place].nan_to_num())[0] - reader.expected_mean(prior, endogenous[:, i])
                z[i] = z[i] + known * told
            return self.scm.exogenous(torch.stack(z, dim=1))
        for i, (logits, mean) in enumerate(zip(self.label_logits(endogenous), self.label_mean, strict=True)):
            own = labels[:, i, None]
            known = (own == torch.arange(logits.shape[1], device=own.device)).to(mean.dtype)
            read = logits.softmax(dim=1).detach()  # a classifier learns to read labels, not to help decoding
            z[i] = z[i] + (own != UNLABELLED) * ((known - read) @ mean)
        return self.scm.exogenous(torch.stack(z, dim=1))

    def mean_estimate(self, endogenous: Tensor) -> Tensor:
        """Estimate mean expression given the concepts: the denoiser's x0 at pure noise.

        Parameters
        ----------
        endogenous
            Endogenous embeddings, [B x M x k].

        Returns
        -------
        Tensor
            Conditional mean on the log scale, clipped at zero, [B x G].
        """
        last = torch.full((len(endogenous),), self.schedule.timesteps - 1, device=endogenous.device)
        x0: Tensor = self.denoiser(torch.zeros_like(self.mean).expand(len(endogenous), -1), last, endogenous)
        return (x0 * self.deviation + self.mean).clamp(min=0)
