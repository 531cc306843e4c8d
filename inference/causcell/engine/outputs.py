"""Check of what an engine answers: nothing above the engines meets an array that the manifest does not describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from causcell._internal.values import first_unsound
from causcell.errors import EngineError, format_list
from causcell.repository.manifest import EXPRESSION_FLOAT16, GraphInfo, TensorInfo

_ROUNDING = 1e-5
"""What a probability may exceed 1 by: runtimes' sigmoids do, by some units of the last place of a float32."""

_RANGES = {
    "expression": (0.0, math.inf),
    EXPRESSION_FLOAT16: (0.0, math.inf),
    "slab_probability": (0.0, 1.0 + _ROUNDING),
    "slab_deviation": (0.0, math.inf),
}
"""Ranges of outputs by name; every other output has only to be finite."""


def check_answer(
    graph: str,
    info: GraphInfo,
    outputs: Sequence[str],
    batch: int,
    answer: Mapping[str, object],
    *,
    origin: str,
    genes: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Return the outputs that were asked for, if the answer is what the manifest states.

    Parameters
    ----------
    graph, info
        Name of the graph, and what the manifest states about it.
    outputs
        Names of the wanted outputs.
    batch
        Rows that were asked for, B.
    answer
        What the graph or the server gave, by name.
    origin
        What answered, for messages: the file of the graph, or the address of the server.
    genes
        Names of the panel genes, for messages.

    Returns
    -------
    The outputs by name, each of the manifest's element type and of shape [B x ...], its values finite, expression and
    deviations not negative, probabilities from 0 to 1 (but for rounding).

    Raises
    ------
    EngineError
        An output is missing, of another type or shape, or has a value that can't be; the message names the first.
    """
    checked = {}
    for name in outputs:
        found = answer.get(name)
        if not isinstance(found, np.ndarray):
            there = [each for each, value in answer.items() if isinstance(value, np.ndarray)]
            raise EngineError(
                f"{origin} answered graph {graph!r} without output {name!r} (it gave {format_list(there) or 'nothing'})"
                f"; {_REMEDY}"
            )
        tensor = info.outputs[name]
        if not fits(found, tensor, batch):
            raise EngineError(
                f"{origin} answered output {name!r} of graph {graph!r} with {found.dtype} {list(found.shape)}, where "
                f"the manifest states {tensor.dtype} {[batch, *tensor.shape]}; {_REMEDY}"
            )
        if found.dtype.kind == "f":
            low, high = _RANGES.get(name, (-math.inf, math.inf))
            place = first_unsound(found, low, high)
            if place is not None:
                raise EngineError(
                    f"{origin} answered output {name!r} of graph {graph!r} with {found[place]} "
                    f"{_say(place, tensor, genes)}, where {_allowed(low, high)} is allowed; {_REMEDY}"
                )
        checked[name] = found
    return checked


_REMEDY = "nothing of this batch is used: check the cells' values, then the server or the exported files"


def fits(array: np.ndarray, tensor: TensorInfo, batch: int | None = None) -> bool:
    """Tell if an array [B x ...] is of a tensor's type and shape, and of ``batch`` rows if that is given."""
    return (
        array.dtype == tensor.dtype
        and array.ndim == len(tensor.shape) + 1
        and batch in (None, len(array))
        and all(size in (-1, found) for size, found in zip(tensor.shape, array.shape[1:], strict=True))
    )


def _say(place: tuple[int, ...], tensor: TensorInfo, genes: Sequence[str]) -> str:
    """Name the row of a value, and its gene where the other axis is that of genes."""
    row, *others = place
    gene = f" (gene {genes[others[0]]!r})" if genes and tensor.shape == (len(genes),) else ""
    return f"in row {row} of the batch, place {', '.join(map(str, others))}{gene}"


def _allowed(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    return "a finite number, at least 0," if math.isinf(high) else f"{low:g} to {high:.3g}"
