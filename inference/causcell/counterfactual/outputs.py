"""Outputs: the kinds of results that are kept of a cell's predictions, which are the stores of an atlas.

- ``expression``: ``X``, the expression of each (cell, intervention, draw);
- ``embeddings``: ``obsm["X_causcell"]``, its endogenous embeddings, from which `causcell.atlas.materialize` makes the
  same ``X``;
- ``effects``: ``X``, its expression less that of the factual cell with the same noise;
- ``summary``: ``X``, the mean over a cell's draws, and ``layers["deviation"]``, their standard deviation (n - 1).

A kind of output is an `Accumulator`, entered in `ACCUMULATORS` by its name; `OutputKind` lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np

from causcell.randomness import CellNoise

OutputKind = Literal["expression", "embeddings", "effects", "summary"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

EMBEDDINGS = "obsm/X_causcell"
DEVIATION = "layers/deviation"

Decode = Callable[[np.ndarray, CellNoise], np.ndarray]
"""(endogenous float32 [B x M x k], noise) -> expression [B x G]."""


@dataclass(frozen=True)
class Prediction:
    """A batch of cells under one intervention, in one draw.

    Attributes
    ----------
    intervention, draw
        Places of the intervention and of the draw in the request.
    factual
        The cells' own endogenous embeddings, float32 [B x M x k].
    endogenous
        Endogenous embeddings under the intervention, float32 [B x M x k].
    labels
        Label codes after the intervention, int32 [B x m].
    unmatched
        Cells for which no reference cell carried the parents' labels, bool [B].
    """

    intervention: int
    draw: int
    factual: np.ndarray
    endogenous: np.ndarray
    labels: np.ndarray
    unmatched: np.ndarray


@dataclass(frozen=True)
class Block:
    """Results for consecutive cells; rows are (cell, intervention, draw), the last fastest.

    Attributes
    ----------
    cells
        Places of the cells.
    names
        Their names, str objects [cells].
    factual
        Their own label codes, int32 [cells x m].
    arrays
        What is kept, [rows x columns], by place in an AnnData. Float32;
        expression itself is of the request's type.
    labels
        Label codes after the intervention, int32 [rows x m].
    unmatched
        Rows whose reference cell does not carry the parents' labels, bool [rows].
    """

    cells: slice
    names: np.ndarray
    factual: np.ndarray
    arrays: dict[str, np.ndarray]
    labels: np.ndarray
    unmatched: np.ndarray


class Accumulator(Protocol):
    """Take the predictions of a batch of cells, draw by draw, and give what is kept of them.

    Parameters
    ----------
    decode
        Gives expression.
    shape
        (cells, interventions, draws); a prediction may have more cells than are kept: its batch is padded.

    Attributes
    ----------
    places
        Places of the arrays that it gives, in an AnnData.
    """

    places: ClassVar[tuple[str, ...]]

    def __init__(self, decode: Decode, shape: tuple[int, int, int]) -> None: ...

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        """Take a prediction, with the cells' random numbers of its draw."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is kept, [cells x interventions x draws x columns], by place in an AnnData."""
        ...


def make_accumulator(kind: OutputKind, decode: Decode, shape: tuple[int, int, int]) -> Accumulator:
    """Make the accumulator of an output kind for a (cells, interventions, draws) shape.

    Parameters
    ----------
    kind
        What is kept.
    decode
        Gives expression.
    shape
        The batch may have more cells than are kept: it is padded.
    """
    return ACCUMULATORS[kind](decode, shape)


def array_widths(kind: OutputKind, genes: int, embedding: int) -> dict[str, int]:
    """Return the columns of each array of an output kind, by place in an AnnData.

    Parameters
    ----------
    kind
        What is kept.
    genes
        G.
    embedding
        M k, numbers of all concepts' embeddings.

    Examples
    --------
    >>> array_widths("summary", genes=2000, embedding=128)
    {'X': 2000, 'layers/deviation': 2000}
    """
    return {place: embedding if place == EMBEDDINGS else genes for place in ACCUMULATORS[kind].places}


class _Samples:
    """One vector a prediction."""

    places: ClassVar[tuple[str, ...]] = ("X",)

    def __init__(self, decode: Decode, shape: tuple[int, int, int]) -> None:
        self._decode, self._shape = decode, shape
        self._kept: np.ndarray | None = None

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        return self._decode(prediction.endogenous, noise)

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        vectors = self.vectors(prediction, noise)[: self._shape[0]]
        if self._kept is None:
            self._kept = np.empty((*self._shape, vectors.shape[1]), dtype=vectors.dtype)
        self._kept[:, prediction.intervention, prediction.draw] = vectors

    def arrays(self) -> dict[str, np.ndarray]:
        assert self._kept is not None
        return {self.places[0]: self._kept}


class _Embeddings(_Samples):
    places: ClassVar[tuple[str, ...]] = (EMBEDDINGS,)

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        return prediction.endogenous.reshape(len(prediction.endogenous), -1)


class _Effects(_Samples):
    _factual: tuple[int, np.ndarray] | None = None

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        if self._factual is None or self._factual[0] != prediction.draw:
            self._factual = (prediction.draw, self._decode(prediction.factual, noise))
        effect: np.ndarray = super().vectors(prediction, noise) - self._factual[1]
        return effect


class _Summary:
    """Mean and deviation without keeping the draws (Welford 1962), in double precision."""

    places: ClassVar[tuple[str, ...]] = ("X", DEVIATION)

    def __init__(self, decode: Decode, shape: tuple[int, int, int]) -> None:
        self._decode, self._shape = decode, shape
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        cells, interventions, _ = self._shape
        drawn = self._decode(prediction.endogenous, noise)[:cells]
        if self._mean is None or self._squares is None:
            self._mean, self._squares = np.zeros((2, cells, interventions, drawn.shape[1]))
        mean, squares = self._mean[:, prediction.intervention], self._squares[:, prediction.intervention]
        change = drawn - mean
        mean += change / (prediction.draw + 1)
        squares += change * (drawn - mean)

    def arrays(self) -> dict[str, np.ndarray]:
        assert self._mean is not None and self._squares is not None
        deviation = np.sqrt(self._squares / (self._shape[2] - 1))
        return {"X": self._mean[:, :, None].astype(np.float32), DEVIATION: deviation[:, :, None].astype(np.float32)}


ACCUMULATORS: Mapping[OutputKind, type[Accumulator]] = {
    "expression": _Samples,
    "embeddings": _Embeddings,
    "effects": _Effects,
    "summary": _Summary,
}
"""The accumulator of each output kind."""


def most_frequent(codes: np.ndarray) -> np.ndarray:
    """Return the most frequent code among the draws, the lowest of several.

    Parameters
    ----------
    codes
        int32 [... x draws x m].

    Returns
    -------
    int32 [... x 1 x m].

    Examples
    --------
    >>> import numpy as np
    >>> most_frequent(np.array([[[2], [0], [2]]], dtype=np.int32)).tolist()
    [[[2]]]
    """
    draws = codes.shape[-2]
    times = sum((codes[..., [draw], :] == codes) for draw in range(draws)).astype(np.int64)
    rank = times * (np.iinfo(np.int32).max + np.int64(1)) - codes
    return np.take_along_axis(codes, rank.argmax(axis=-2, keepdims=True), axis=-2)
