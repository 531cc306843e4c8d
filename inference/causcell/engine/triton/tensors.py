"""Arrays in requests and answers, in Triton's words: types, shapes, places in shared memory, and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

ArraySpecs = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape (with the batch) of arrays, by name."""

TRITON_TYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "uint8": "UINT8"}
"""Triton's name of each dtype."""

LARGEST_HEADER = 1 << 16
"""Bytes of an answer beside the arrays: names, types and shapes."""


class StrangeAnswerError(ValueError):
    """An answer is not what was asked for; its message says in which way."""


@dataclass(frozen=True)
class Place:
    """Place of an array in shared memory.

    Attributes
    ----------
    region
        Name of the region, as the server knows it.
    offset, size
        Bytes from its start, and of the array.
    """

    region: str
    offset: int
    size: int


class Described(TypedDict):
    """An output as an answer describes it."""

    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=0)]]


class _Output(Described, total=False):
    parameters: dict[str, Any]


class _Answer(TypedDict):
    outputs: list[_Output]


_ANSWER = TypeAdapter(_Answer)


def count_bytes(spec: tuple[str, tuple[int, ...]]) -> int:
    """Count the bytes of an array of a dtype and shape."""
    dtype, shape = spec
    return math.prod(shape) * np.dtype(dtype).itemsize


def check_outputs(described: Sequence[Described], wanted: ArraySpecs) -> None:
    """Check that an answer describes each wanted output once, of its type and shape, and no other.

    Raises
    ------
    StrangeAnswerError
        It does not.
    """
    names = [each["name"] for each in described]
    if sorted(names) != sorted(wanted):
        raise StrangeAnswerError(f"it holds outputs {names[:8]!r}, and was asked for {list(wanted)!r}"[:400])
    for each in described:
        dtype, shape = wanted[each["name"]]
        if (each["datatype"], tuple(each["shape"])) != (TRITON_TYPES[dtype], shape):
            raise StrangeAnswerError(
                f"output {each['name']!r} is {each['datatype'][:20]} {each['shape'][:8]}, and was asked for as "
                f"{TRITON_TYPES[dtype]} {list(shape)}"
            )


def array_of(content: bytes | memoryview, spec: tuple[str, tuple[int, ...]], name: str) -> np.ndarray:
    """Make an output's array of its bytes; raise `StrangeAnswerError` if there are more or fewer than it has."""
    if len(content) != count_bytes(spec):
        raise StrangeAnswerError(f"output {name!r} has {len(content)} bytes, and its shape {count_bytes(spec)}")
    dtype, shape = spec
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)


def describe_request(
    inputs: Mapping[str, np.ndarray], outputs: ArraySpecs, places: Mapping[str, Place]
) -> dict[str, Any]:
    """Describe a request as its JSON does; arrays that have no place follow it, one after the other."""

    def parameters(name: str, otherwise: dict[str, Any]) -> dict[str, Any]:
        place = places.get(name)
        if place is None:
            return otherwise
        return {
            "shared_memory_region": place.region,
            "shared_memory_byte_size": place.size,
            "shared_memory_offset": place.offset,
        }

    return {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": TRITON_TYPES[array.dtype.name],
                "parameters": parameters(name, {"binary_data_size": array.nbytes}),
            }
            for name, array in inputs.items()
        ],
        "outputs": [{"name": name, "parameters": parameters(name, {"binary_data": True})} for name in outputs],
    }


def read_answer(header: bytes, wanted: ArraySpecs, places: Mapping[str, Place]) -> list[str]:
    """Read the JSON of an answer.

    Parameters
    ----------
    header
        The JSON.
    wanted
        What was asked for.
    places
        Where outputs are that do not follow the JSON.

    Returns
    -------
    Names of the outputs whose bytes follow, in their order.

    Raises
    ------
    StrangeAnswerError
        It is no JSON of an answer, or describes something else than was asked for.
    """
    try:
        outputs = _ANSWER.validate_json(header)["outputs"]
    except ValidationError as error:
        raise StrangeAnswerError(f"its JSON is not of an inference: {first_problem(error)}") from error
    check_outputs(outputs, wanted)
    following = []
    for output in outputs:
        name = output["name"]
        if name in places:
            continue
        size = output.get("parameters", {}).get("binary_data_size")
        if type(size) is not int or size != count_bytes(wanted[name]):
            raise StrangeAnswerError(
                f"output {name!r} is said to have {str(size)[:20]} bytes, and its shape {count_bytes(wanted[name])}"
            )
        following.append(name)
    return following


def first_problem(error: ValidationError) -> str:
    """Return the first thing that a validation found, in a few words."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}"[:200] if place else found["msg"][:200]
