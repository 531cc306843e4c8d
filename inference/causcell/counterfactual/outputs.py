"""Outputs: the kinds of results that are kept of a cell's predictions, which are the stores of an atlas.

- ``expression``: ``X``, the expression of each (cell, intervention, draw);
- ``counts``: ``X``, counts of the same samples, int32; see `causcell.counterfactual.counts`;
- ``embeddings``: ``obsm["X_causcell"]``, its endogenous embeddings, from which `causcell.atlas.materialize` makes the
  same ``X``;
- ``effects``: ``X``, its expression less that of the factual cell with the same noise;
- ``summary``: ``X``, the mean over a cell's draws, and ``layers["deviation"]``, their standard deviation (n - 1);
  ``layers["effect"]``, the mean over draws of its expression less that of the factual cell with the same noise, and
  ``layers["lower"]`` and ``layers["upper"]``, the ends of the effect's interval: see
  `causcell.counterfactual.uncertainty` for what it covers. NaN where the model holds no measured error.

A kind of output is an `Accumulator`, entered in `ACCUMULATORS` by its name; `OutputKind` lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, get_args

import numpy as np

from causcell.randomness import CellNoise

if TYPE_CHECKING:
    from scipy import sparse

OutputKind = Literal["expression", "counts", "embeddings", "effects", "summary"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

EMBEDDINGS = "obsm/X_causcell"
DEVIATION = "layers/deviation"
EFFECT = "layers/effect"
LOWER, UPPER = "layers/lower", "layers/upper"

SIGNED = frozenset({EFFECT, LOWER, UPPER})
"""Places of a summary whose values may be negative."""

PARTIAL = frozenset({LOWER, UPPER})
"""Places whose values may be missing, NaN."""

Rows: TypeAlias = "np.ndarray | sparse.csr_matrix"
"""Values of rows, [rows x columns]; zeros left out where most values are zero."""

Decode = Callable[[np.ndarray, CellNoise], Any]
"""(endogenous float32 [B x M x k], noise) -> `Rows` of expression, or counts of it, [B x G]."""

HalfWidth = Callable[[int, np.ndarray, np.ndarray], np.ndarray]
"""(place of the intervention, effect, its deviation over draws, each [B x G]) -> half the interval's width [B x G]."""


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
    numbers
        Standardised numbers after the intervention, float32 [B x c], of concepts that have some; else `None`.
    """

    intervention: int
    draw: int
    factual: np.ndarray
    endogenous: np.ndarray
    labels: np.ndarray
    unmatched: np.ndarray
    numbers: np.ndarray | None = None


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
        What is kept, [rows x columns], by place in an AnnData. Float32; expression itself is of the request's type,
        counts are int32. ``X`` of draws is a CSR matrix where the stream was asked for sparse blocks.
    labels
        Label codes after the intervention, int32 [rows x m].
    unmatched
        Rows whose reference cell does not carry the parents' labels, bool [rows].
    library
        Library sizes that counts were made for, float64 [cells]; `None` for other kinds of results.
    own_numbers, numbers
        Standardised numbers of the cells, float32 [cells x c], and of the rows, [rows x c]; `None` where no concept has
        numbers.
    """

    cells: slice
    names: np.ndarray
    factual: np.ndarray
    arrays: dict[str, Rows]
    labels: np.ndarray
    unmatched: np.ndarray
    library: np.ndarray | None = None
    own_numbers: np.ndarray | None = None
    numbers: np.ndarray | None = None


class Accumulator(Protocol):
    """Take the predictions of a batch of cells, draw by draw, and give what is kept of them.

    Parameters
    ----------
    decode
        Gives expression.
    shape
        (cells, interventions, draws); a prediction may have more cells than are kept: its batch is padded.
    half_width
        Gives the width of intervals.

    Attributes
    ----------
    places
        Places of the arrays that it gives, in an AnnData.
    """

    places: ClassVar[tuple[str, ...]]

    def __init__(self, decode: Decode, shape: tuple[int, int, int], half_width: HalfWidth) -> None: ...

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        """Take a prediction, with the cells' random numbers of its draw."""
        ...

    def arrays(self) -> dict[str, Rows]:
        """Return what is kept, rows (cell, intervention, draw), the last fastest, by place in an AnnData."""
        ...


def make_accumulator(
    kind: OutputKind, decode: Decode, shape: tuple[int, int, int], half_width: HalfWidth
) -> Accumulator:
    """Make the accumulator of an output kind for a (cells, interventions, draws) shape.

    Parameters
    ----------
    kind
        What is kept.
    decode
        Gives expression.
    shape
        The batch may have more cells than are kept: it is padded.
    half_width
        Gives the width of the effects' intervals.
    """
    return ACCUMULATORS[kind](decode, shape, half_width)


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
    {'X': 2000, 'layers/deviation': 2000, 'layers/effect': 2000, 'layers/lower': 2000, 'layers/upper': 2000}
    """
    return {place: embedding if place == EMBEDDINGS else genes for place in ACCUMULATORS[kind].places}


class _Samples:
    """One vector a prediction."""

    places: ClassVar[tuple[str, ...]] = ("X",)

    def __init__(self, decode: Decode, shape: tuple[int, int, int], half_width: HalfWidth) -> None:
        self._decode, self._shape = decode, shape
        self._kept: np.ndarray | None = None

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        return np.asarray(self._decode(prediction.endogenous, noise))

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        vectors = self.vectors(prediction, noise)[: self._shape[0]]
        if self._shape[1:] == (1, 1):
            self._kept = vectors[:, None, None]
            return
        if self._kept is None:
            self._kept = np.empty((*self._shape, vectors.shape[1]), dtype=vectors.dtype)
        self._kept[:, prediction.intervention, prediction.draw] = vectors

    def arrays(self) -> dict[str, Rows]:
        assert self._kept is not None
        return {self.places[0]: _flatten(self._kept)}


class SparseSamples:
    """Expression of draws as a CSR matrix: an `Accumulator` whose ``decode`` gives such matrices."""

    places: ClassVar[tuple[str, ...]] = ("X",)

    def __init__(self, decode: Decode, shape: tuple[int, int, int], half_width: HalfWidth) -> None:
        self._decode, self._shape = decode, shape
        self._kept: dict[tuple[int, int], sparse.csr_matrix] = {}

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        """Take a prediction; see `Accumulator.add`."""
        drawn = self._decode(prediction.endogenous, noise)
        cells = self._shape[0]
        self._kept[prediction.intervention, prediction.draw] = drawn if drawn.shape[0] == cells else drawn[:cells]

    def arrays(self) -> dict[str, Rows]:
        """Return the matrix; see `Accumulator.arrays`."""
        from scipy import sparse

        matrices = [self._kept[place] for place in sorted(self._kept)]
        if len(matrices) == 1:
            return {"X": matrices[0]}
        order = np.arange(len(matrices) * self._shape[0]).reshape(len(matrices), -1).T.ravel()
        return {"X": sparse.vstack(matrices, format="csr")[order]}


class _Embeddings(_Samples):
    places: ClassVar[tuple[str, ...]] = (EMBEDDINGS,)

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        return prediction.endogenous.reshape(len(prediction.endogenous), -1)


class _Effects(_Samples):
    _factual: _FactualCells | None = None

    def vectors(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        self._factual = self._factual or _FactualCells(self._decode)
        return np.asarray(super().vectors(prediction, noise) - self._factual.decode(prediction, noise))


class _FactualCells:
    """Expression of the factual cells, decoded once a draw."""

    def __init__(self, decode: Decode) -> None:
        self._decode, self._draw = decode, -1
        self._expression = np.empty(0)

    def decode(self, prediction: Prediction, noise: CellNoise) -> np.ndarray:
        if self._draw != prediction.draw:
            self._draw, self._expression = prediction.draw, self._decode(prediction.factual, noise)
        return self._expression


class _Moments:
    """Mean and deviation without keeping the draws (Welford 1962), in double precision."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._mean, self._squares = np.zeros((2, *shape))
        self._count = np.zeros(shape[1], dtype=np.int64)

    def add(self, place: int, values: np.ndarray) -> None:
        """Take a draw of one intervention, [cells x G]."""
        self._count[place] += 1
        change = values - self._mean[:, place]
        self._mean[:, place] += change / self._count[place]
        self._squares[:, place] += change * (values - self._mean[:, place])

    def mean(self) -> np.ndarray:
        return np.asarray(self._mean)

    def deviation(self) -> np.ndarray:
        return np.asarray(np.sqrt(self._squares / (self._count - 1)[:, None]))


class _Summary:
    """Mean and deviation over draws of expression; mean and interval of effects."""

    places: ClassVar[tuple[str, ...]] = ("X", DEVIATION, EFFECT, LOWER, UPPER)

    def __init__(self, decode: Decode, shape: tuple[int, int, int], half_width: HalfWidth) -> None:
        self._decode, self._shape, self._half_width = decode, shape, half_width
        self._factual = _FactualCells(decode)
        self._moments: tuple[_Moments, _Moments] | None = None

    def add(self, prediction: Prediction, noise: CellNoise) -> None:
        cells, interventions, _ = self._shape
        drawn = self._decode(prediction.endogenous, noise)[:cells]
        if self._moments is None:
            shape = (cells, interventions, drawn.shape[1])
            self._moments = _Moments(shape), _Moments(shape)
        effect = drawn - self._factual.decode(prediction, noise)[:cells]
        for moments, values in zip(self._moments, (drawn, effect), strict=True):
            moments.add(prediction.intervention, values)

    def arrays(self) -> dict[str, Rows]:
        assert self._moments is not None
        expression, effects = self._moments
        effect, deviation = effects.mean(), effects.deviation()
        half = np.stack([self._half_width(i, effect[:, i], deviation[:, i]) for i in range(self._shape[1])], axis=1)
        found = (expression.mean(), expression.deviation(), effect, effect - half, effect + half)
        return {place: _flatten(array.astype(np.float32)) for place, array in zip(self.places, found, strict=True)}


def _flatten(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])


ACCUMULATORS: Mapping[OutputKind, type[Accumulator]] = {
    "expression": _Samples,
    "counts": _Samples,
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


def mean_numbers(numbers: np.ndarray) -> np.ndarray:
    """Return the mean number over draws, float32 [... x 1 x c] of [... x draws x c]; what all draws have stays exact.

    Examples
    --------
    >>> import numpy as np
    >>> mean_numbers(np.array([[[1.0], [2.0]]], dtype=np.float32)).tolist()
    [[[1.5]]]
    """
    first = numbers[..., :1, :]
    return np.asarray(first + (numbers - first).mean(axis=-2, keepdims=True), dtype=np.float32)
