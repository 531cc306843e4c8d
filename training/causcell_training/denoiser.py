"""The denoiser: predicts the clean x0 from x_t, the time and the concept embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causcell.diffusion.schedule import NoiseSchedule
from causcell_training.heads import Head, head_class


class ConceptAttention(nn.Module):
    """Cross-attention of one query token a cell to its M concept tokens (Vaswani et al. 2017).

    A token is z_i beside a one-hot identity (attention knows no order). As there is a single query, the key map
    folds into the query map and the value map into the output map: the tokens themselves are keys and values, and
    no product of tokens with weights is left.

    Parameters
    ----------
    width
        Hidden width d.
    concepts
        Number of concepts M, the unexplained one included.
    embedding
        Numbers a concept k.
    heads
        Number of attention heads.
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
        """Return what hidden states [B x d] attend to among embeddings z [B x M x k], [B x d]."""
        tokens = torch.cat([z, self.identity.expand(z.shape[0], -1, -1)], dim=2)
        query = self.query(hidden).unflatten(1, (self._heads, self._token))
        weights = torch.softmax(query @ tokens.transpose(1, 2) / math.sqrt(self._token), dim=2)
        attended: Tensor = self.output((weights @ tokens).flatten(1))
        return attended


class Block(nn.Module):
    """Pre-norm cross-attention and GEGLU feed-forward (Shazeer 2020), each with a residual.

    Parameters are those of `ConceptAttention`.
    """

    def __init__(self, width: int, concepts: int, embedding: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = ConceptAttention(width, concepts, embedding, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.value = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor, z: Tensor) -> Tensor:
        """Return the next hidden state [B x d] of the one before [B x d] and embeddings z [B x M x k]."""
        hidden = hidden + self.attention(self.attention_norm(hidden), z)
        normed = self.feedforward_norm(hidden)
        change: Tensor = self.contract(self.value(normed) * F.gelu(self.gate(normed)))
        return hidden + change


class Denoiser(nn.Module):
    """D(x_t, t, z): the clean x0 from noised cells, their time and their concepts; all on the standardised scale.

    The input is scaled by sqrt(abar_t): at pure noise the network sees z alone. The concepts condition it by
    cross-attention, and by a linear map into the first hidden state, which carries their magnitudes past the softmax.
    What the head reads is the sum of that map and the blocks' changes, as it is: divided by its own deviation, every
    concept's effect would depend on the size of all others, the unexplained one's too.

    Parameters
    ----------
    zero
        Standardised zero expression, float32 [G].
    concepts
        Number of concepts M, the unexplained one included.
    embedding
        Numbers a concept k.
    width
        Hidden width d.
    blocks
        Number of blocks.
    heads
        Number of attention heads.
    head
        Name of a registered head; see `causcell_training.heads`.
    schedule
        The noise schedule, of T timesteps.
    last_norm
        Normalise the last hidden state over its d numbers.

    Raises
    ------
    ConfigurationError
        An unknown head.
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
        last_norm: bool = False,
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
        self.norm = nn.LayerNorm(width) if last_norm else nn.Identity()
        self.head: Head = head_class(head)(width, zero)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the matrix products; see `lower`."""
        return self.input.weight.dtype

    def lower(self, dtype: torch.dtype) -> None:
        """Lower matrix products and hidden states to another precision.

        Time, x_t and the head's own arithmetic stay as they were: half precision can't hold the panel's largest values,
        nor their squares over small variances.
        """
        for module in (self.input, self.concepts, self.blocks, self.norm, *self.head.children()):
            module.to(dtype)

    def time_table(self) -> Tensor:
        """Compute the embedding of every timestep, float32 [T x d]."""
        table: Tensor = self.time(self.frequencies)
        return table

    def hidden(self, x_t: Tensor, time: Tensor, alpha_bar: Tensor, z: Tensor) -> Tensor:
        """Compute the last hidden state.

        Parameters
        ----------
        x_t
            Noised cells, float32 [B x G].
        time
            Rows of `time_table`, float32 [B x d].
        alpha_bar
            abar of each cell's time, float32 [B x 1].
        z
            Endogenous embeddings, float32 [B x M x k].

        Returns
        -------
        [B x d], of `dtype`.
        """
        return self._run_blocks(self.input((alpha_bar.sqrt() * x_t).to(self.dtype)) + time.to(self.dtype), z)

    def hidden_at_noise(self, time: Tensor, z: Tensor) -> Tensor:
        """Compute `hidden` at pure noise (abar 0), where x_t tells nothing: no map of G numbers is needed."""
        return self._run_blocks((self.input.bias + time.to(self.dtype)).expand(z.shape[0], -1), z)

    def _run_blocks(self, hidden: Tensor, z: Tensor) -> Tensor:
        z = z.to(self.dtype)
        hidden = hidden + self.concepts(z.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, z)
        normed: Tensor = self.norm(hidden)
        return normed

    def forward(self, x_t: Tensor, timestep: Tensor, z: Tensor) -> Tensor:
        """Compute the posterior mean of x0, [B x G], for x_t [B x G], timestep int64 [B] and z [B x M x k]."""
        alpha_bar = self.alpha_bar[timestep, None]
        time = self.time(self.frequencies[timestep])
        return self.head.x0(self.hidden(x_t, time, alpha_bar, z), x_t, alpha_bar)

    def losses(self, x: Tensor, timestep: Tensor, noise: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute the head's losses at x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise.

        Parameters
        ----------
        x, noise
            Clean cells and standard normals, float32 [B x G].
        timestep
            int64 [B].
        z
            Endogenous embeddings, float32 [B x M x k].

        Returns
        -------
        Losses by name, float32 [B x G] each; see `causcell_training.heads.Head.losses`.
        """
        alpha_bar = self.alpha_bar[timestep, None]
        x_t = (alpha_bar.sqrt() * x).add_((1 - alpha_bar).sqrt() * noise)
        hidden = self.hidden(x_t, self.time(self.frequencies[timestep]), alpha_bar, z)
        return self.head.losses(hidden, x_t, alpha_bar, x)
