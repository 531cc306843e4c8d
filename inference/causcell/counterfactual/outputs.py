"""What is kept of every cell's outcomes: the stores of an atlas.

- ``expression``: ``X``, the expression of each (cell, intervention, draw);
- ``embeddings``: ``obsm["X_causcell"]``, its endogenous embeddings, from which `causcell.atlas.materialize` makes the
  same
  ``X``;
- ``effects``: ``X``, its expression less that of the factual cell with the same noise;
- ``summary``: ``X``, the mean over a cell's draws, and ``layers["deviation"]``, their standard deviation (n - 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from causcell.counterfactual.scm import Intervened
from causcell.errors import ConfigurationError, format_list
from causcell.randomness import CellNoise

Store = Literal["expression", "embeddings", "effects", "summary"]


STORES: tuple[Store, ...] = ("expression", "embeddings", "effects", "summary")


EMBEDDINGS = "obsm/X_causcell"


DEVIATION = "layers/deviation"


Decode = Callable[[np.ndarray, CellNoise], np.ndarray]
"""(endogenous float32 [B x M x k], noise) -> expression [B x G]."""


def check_store(store: str) -> Store:
    """The store, if it is one; raises `ConfigurationError`."""
    for known in STORES:
        if store == known:
            return known
    raise ConfigurationError(f"store {store!r} is not known; known are {format_list(STORES)}")


@dataclass(frozen=True)
class Outcome:
    """A batch of cells under one intervention, in one draw.

    Attributes
    ----------
    intervention, draw
        Their places.
    factual
        The cells' own endogenous embeddings, float32 [B x M x k].
    result
        Embeddings and labels under the intervention.
    noise
        The cells' random numbers of the draw.
    """

    intervention: int
    draw: int
    factual: np.ndarray
    result: Intervened
    noise: CellNoise


class Keeper(Protocol):
    """Takes the outcomes of a batch of cells, draw by draw, and gives what is kept of them."""

    def add(self, outcome: Outcome) -> None:
        """Take an outcome."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """By place in an AnnData (``X``, ``layers/deviation``), [cells x interventions x draws x columns]."""
        ...


def array_widths(store: Store, genes: int, embedding: int) -> dict[str, int]:
    """Columns of each array of a store, by place; ``embedding`` is M k."""
    if store == "embeddings":
        return {EMBEDDINGS: embedding}
    return {"X": genes, DEVIATION: genes} if store == "summary" else {"X": genes}


def keeper(store: Store, decode: Decode, shape: tuple[int, int, int]) -> Keeper:
    """The keeper of a store for (cells, interventions, draws)."""
    return _KEEPERS[store](decode, shape)


class _Samples:
    """One vector an outcome."""

    place = "X"

    def __init__(self, decode: Decode, shape: tuple[int, int, int]) -> None:
        self._decode, self._shape = decode, shape
        self._kept: np.ndarray | None = None

    def vectors(self, outcome: Outcome) -> np.ndarray:
        return self._decode(outcome.result.endogenous, outcome.noise)

    def add(self, outcome: Outcome) -> None:
        vectors = self.vectors(outcome)[: self._shape[0]]
        if self._kept is None:
            self._kept = np.empty((*self._shape, vectors.shape[1]), dtype=vectors.dtype)
        self._kept[:, outcome.intervention, outcome.draw] = vectors

    def arrays(self) -> dict[str, np.ndarray]:
        assert self._kept is not None
        return {self.place: self._kept}


class _Embeddings(_Samples):
    place = EMBEDDINGS

    def vectors(self, outcome: Outcome) -> np.ndarray:
        return outcome.result.endogenous.reshape(len(outcome.result.endogenous), -1)


class _Effects(_Samples):
    _factual: tuple[int, np.ndarray] | None = None

    def vectors(self, outcome: Outcome) -> np.ndarray:
        if self._factual is None or self._factual[0] != outcome.draw:
            self._factual = (outcome.draw, self._decode(outcome.factual, outcome.noise))
        return super().vectors(outcome) - self._factual[1]


class _Summary:
    """Mean and deviation without keeping the draws (Welford 1962), in double precision."""

    def __init__(self, decode: Decode, shape: tuple[int, int, int]) -> None:
        self._decode, self._shape = decode, shape
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, outcome: Outcome) -> None:
        cells, interventions, _ = self._shape
        drawn = self._decode(outcome.result.endogenous, outcome.noise)[:cells]
        if self._mean is None or self._squares is None:
            self._mean, self._squares = np.zeros((2, cells, interventions, drawn.shape[1]))
        mean, squares = self._mean[:, outcome.intervention], self._squares[:, outcome.intervention]
        change = drawn - mean
        mean += change / (outcome.draw + 1)
        squares += change * (drawn - mean)

    def arrays(self) -> dict[str, np.ndarray]:
        assert self._mean is not None and self._squares is not None
        deviation = np.sqrt(self._squares / (self._shape[2] - 1))
        return {"X": self._mean[:, :, None].astype(np.float32), DEVIATION: deviation[:, :, None].astype(np.float32)}


_KEEPERS: dict[Store, Callable[[Decode, tuple[int, int, int]], Keeper]] = {
    "expression": _Samples,
    "embeddings": _Embeddings,
    "effects": _Effects,
    "summary": _Summary,
}


def most_frequent(codes: np.ndarray) -> np.ndarray:
    """Most frequent code among the draws, the lowest of several; int32 [... x draws x m] to [... x 1 x m]."""
    draws = codes.shape[-2]
    times = sum((codes[..., [draw], :] == codes) for draw in range(draws)).astype(np.int64)
    rank = times * (np.iinfo(np.int32).max + np.int64(1)) - codes
    return np.take_along_axis(codes, rank.argmax(axis=-2, keepdims=True), axis=-2)
