"""CausCell: encoder, structural causal model and denoiser as one module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from causcell.concepts import ConceptSchema
from causcell.diffusion.schedule import NoiseSchedule
from causcell.preprocessing import Preprocessing
from causcell_training.config import ModelConfig
from causcell_training.denoiser import Denoiser
from causcell_training.encoder import Encoder
from causcell_training.scm import StructuralCausalModel


class CausCell(nn.Module):
    """The model of Gao et al. (bioRxiv 2024.12.11.628077).

    Shapes: B cells, G panel genes, m observed concepts, M = m + 1 with the unexplained one last, k numbers a concept.
    Expression is on the log scale; the module standardises inside.

    Parameters
    ----------
    schema
        Concepts and graph.
    preprocessing
        Panel and standardisation.
    config
        Shapes of the networks.
    """

    mean: Tensor
    deviation: Tensor

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
        self.scm = StructuralCausalModel(schema, learned=config.edge_weights == "learned")
        self.denoiser = Denoiser(
            -self.mean / self.deviation,
            schema.size,
            config.embedding,
            width=config.width,
            blocks=config.blocks,
            heads=config.heads,
            head=config.head,
            schedule=self.schedule,
        )
        self.classifiers = nn.ModuleList(nn.Linear(config.embedding, len(c.labels)) for c in schema.concepts)

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph, edges with their weights as trained."""
        return self.scm.schema

    def standardise(self, expression: Tensor) -> Tensor:
        """Log scale to standardised scale, [B x G]."""
        return (expression - self.mean) / self.deviation

    def encode(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the exogenous embeddings, each [B x M x k]."""
        return self.encoder(self.standardise(expression))

    def label_logits(self, endogenous: Tensor) -> list[Tensor]:
        """Logits of each concept's labels from its own embedding, [B x labels] each."""
        return [classifier(endogenous[:, i]) for i, classifier in enumerate(self.classifiers)]

    def mean_estimate(self, endogenous: Tensor) -> Tensor:
        """Conditional mean of expression given the concepts, log scale, clipped at zero, [B x G]."""
        last = torch.full((len(endogenous),), self.schedule.timesteps - 1, device=endogenous.device)
        x0 = self.denoiser(torch.zeros_like(self.mean).expand(len(endogenous), -1), last, endogenous)
        return (x0 * self.deviation + self.mean).clamp(min=0)
