"""The denoiser: predicts the clean x0 from x_t, the time and the concept embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causcell.diffusion.schedule import NoiseSchedule
from causcell_training.heads import HEADS


class ConceptAttention(nn.Module):
    """Cross-attention of one query token a cell to its M concept tokens.

    A token is z_i beside a one-hot identity (attention knows no order). As there is a single query, the key map
    folds into the query map and the value map into the output map: the tokens themselves are keys and values, and
    no product of tokens with weights is left.
    """

    identity: Tensor

    def __init__(self, width: int, concepts: int, embedding: int, heads: int) -> None:
        super().__init__()
        self._token = embedding + concepts
        self._heads = heads
        self.query = nn.Linear(width, heads * self._token)
        self.output = nn.Linear(heads * self._token, width)
        self.register_buffer("identity", torch.eye(concepts), persistent=False)

    def forward(self, hidden: Tensor, z: Tensor) -> Tensor:
        """[B x d] of hidden [B x d] and z [B x M x k]."""
        tokens = torch.cat([z, self.identity.expand(z.shape[0], -1, -1)], dim=2)
        query = self.query(hidden).unflatten(1, (self._heads, self._token))
        weights = torch.softmax(query @ tokens.transpose(1, 2) / math.sqrt(self._token), dim=2)
        return self.output((weights @ tokens).flatten(1))


class Block(nn.Module):
    """Pre-norm cross-attention and GEGLU feed-forward (Shazeer 2020), each with a residual."""

    def __init__(self, width: int, concepts: int, embedding: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = ConceptAttention(width, concepts, embedding, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.value = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor, z: Tensor) -> Tensor:
        """[B x d] of hidden [B x d] and z [B x M x k]."""
        hidden = hidden + self.attention(self.attention_norm(hidden), z)
        normed = self.feedforward_norm(hidden)
        return hidden + self.contract(self.value(normed) * F.gelu(self.gate(normed)))


class Denoiser(nn.Module):
    """D(x_t, t, z), everything on the standardised scale.

    The input is scaled by sqrt(abar_t): at pure noise the network sees z alone. The concepts condition it by
    cross-attention, and by a linear map into the first hidden state, which carries their magnitudes past the softmax.
    """

    alpha_bar: Tensor
    frequencies: Tensor

    def __init__(
        self,
        zero: Tensor,
        concepts: int,
        embedding: int,
        *,
        width: int,
        blocks: int,
        heads: int,
        head: str,
        schedule: NoiseSchedule,
    ) -> None:
        super().__init__()
        self.register_buffer("alpha_bar", torch.tensor(schedule.alpha_bar, dtype=torch.float32), persistent=False)
        half = width // 2
        angles = torch.exp(-math.log(10_000) * torch.arange(half) / half) * torch.arange(schedule.timesteps)[:, None]
        self.register_buffer("frequencies", torch.cat([angles.sin(), angles.cos()], dim=1), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width))
        self.input = nn.Linear(len(zero), width)
        self.concepts = nn.Linear(concepts * embedding, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, concepts, embedding, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = HEADS[head](width, zero)

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products; see `lower`."""
        return self.input.weight.dtype

    def lower(self, dtype: torch.dtype) -> None:
        """Let matrix products and hidden states be of a lower precision.

        What is as large as the panel's values stays as it was: time, x_t, and the head's arithmetic, whose squares
        over small variances half precision can't hold.
        """
        for module in (self.input, self.concepts, self.blocks, self.norm, *self.head.children()):
            module.to(dtype)

    def time_table(self) -> Tensor:
        """Embedding of every timestep, [T x d]."""
        return self.time(self.frequencies)

    def hidden(self, x_t: Tensor, time: Tensor, alpha_bar: Tensor, z: Tensor) -> Tensor:
        """Last hidden state [B x d] of x_t [B x G], rows of the time table [B x d], abar_t [B x 1], z [B x M x k]."""
        return self._run_blocks(self.input((alpha_bar.sqrt() * x_t).to(self.dtype)) + time.to(self.dtype), z)

    def hidden_at_noise(self, time: Tensor, z: Tensor) -> Tensor:
        """`hidden` at pure noise (abar 0), where x_t says nothing: no map of G numbers is needed."""
        return self._run_blocks((self.input.bias + time.to(self.dtype)).expand(z.shape[0], -1), z)

    def _run_blocks(self, hidden: Tensor, z: Tensor) -> Tensor:
        z = z.to(self.dtype)
        hidden = hidden + self.concepts(z.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, z)
        return self.norm(hidden)

    def forward(self, x_t: Tensor, timestep: Tensor, z: Tensor) -> Tensor:
        """Mean of x0 given x_t, [B x G], for x_t [B x G], timestep int [B], z [B x M x k]."""
        alpha_bar = self.alpha_bar[timestep, None]
        time = self.time(self.frequencies[timestep])
        return self.head.x0(self.hidden(x_t, time, alpha_bar, z), x_t, alpha_bar)

    def losses(self, x: Tensor, timestep: Tensor, noise: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The head's losses at x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise, by name, each [B x G]."""
        alpha_bar = self.alpha_bar[timestep, None]
        x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        hidden = self.hidden(x_t, self.time(self.frequencies[timestep]), alpha_bar, z)
        return self.head.losses(hidden, x_t, alpha_bar, x)
