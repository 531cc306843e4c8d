"""Look into an ONNX file before ONNX Runtime opens it: it must hold all that it needs, and no code from elsewhere.

ONNX is a protocol buffer: nested messages of numbered fields, walked here without the ``onnx`` package, which a client
does not have. Fields that this module does not know are skipped; weights are never copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from causcell.errors import CorruptFileError, format_list

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}
"""Messages within messages, by their field numbers in ``onnx.proto``."""

_DEEPEST = 64
"""Messages within each other: a graph in a loop in a function takes about ten."""

_OWN_DOMAINS = ("", "ai.onnx")
"""Domains of ONNX's own operators; the files that CausCell exports have no others."""


_Field = tuple[int, int, int, int, int]
"""A field of a message: number, wire type, start, end, and the value where it is a varint."""


class _NotProtobufError(ValueError):
    """The bytes are no protocol buffer."""


def check_onnx(content: bytes, source: str) -> None:
    """Refuse an ONNX file that ONNX Runtime should not open.

    Parameters
    ----------
    content
        Bytes of the file.
    source
        Name of the file, for messages.

    Raises
    ------
    CorruptFileError
        The file is no ONNX model, keeps weights in other files, uses operators that are neither ONNX's own nor defined
        in it, or states sizes that its bytes can't fill.
    """
    used: set[tuple[str, str]] = set()
    defined: set[tuple[str, str]] = set()
    graphs = 0
    waiting = [("model", 0, len(content), 0)]
    try:
        while waiting:
            kind, start, end, depth = waiting.pop()
            if depth > _DEEPEST:
                raise _NotProtobufError(f"messages nested deeper than {_DEEPEST}")
            children, texts = _CHILDREN[kind], {}
            dims: list[int] = []
            for field in _fields(content, start, end):
                number, wire, first, last, _ = field
                if kind == "tensor":
                    _check_tensor_field(content, field, dims, source)
                elif wire == _LENGTH:
                    child = children.get(number)
                    if child is None:
                        texts[number] = (first, last)
                    else:
                        graphs += kind == "model" and child == "graph"
                        waiting.append((child, first, last, depth + 1))
            if kind == "node":
                used.add((_text(content, texts.get(7)), _text(content, texts.get(4))))
            elif kind == "function":
                defined.add((_text(content, texts.get(10)), _text(content, texts.get(1))))
            elif kind == "tensor":
                _check_size(dims, end - start, source)
    except _NotProtobufError as error:
        raise CorruptFileError(f"{source} is no ONNX file ({error}); export again") from None
    if graphs != 1:
        raise CorruptFileError(f"{source} is no ONNX file (it has {graphs} graphs); export again")
    foreign = sorted(f"{domain}.{name}" for domain, name in used - defined if domain not in _OWN_DOMAINS)
    if foreign:
        raise CorruptFileError(
            f"{source} uses operators that are not ONNX's own: {format_list(foreign)}; a model repository takes ONNX's "
            "operators alone: export again"
        )


def _check_tensor_field(content: bytes, field: _Field, dims: list[int], source: str) -> None:
    """Refuse external data of a tensor, and collect its dimensions."""
    number, wire, place, end, value = field
    if number == 13 or (number == 14 and value != 0):
        raise CorruptFileError(
            f"{source} keeps weights in other files (external data), which its digest does not cover; a model "
            "repository takes graphs that hold their weights: export again"
        )
    if number == 1:
        if wire == _VARINT:
            dims.append(_signed(value))
        elif wire == _LENGTH:
            while place < end:
                value, place = _varint(content, place, end)
                dims.append(_signed(value))


def _check_size(dims: list[int], size: int, source: str) -> None:
    """Refuse a tensor of more values than its bytes can be: two a byte at most (4-bit numbers)."""
    if any(each < 0 for each in dims) or math.prod(dims) > 2 * size:
        raise CorruptFileError(
            f"{source} states a tensor of shape {dims[:8]} in {size} bytes, which can't hold it; export again"
        )


def _fields(content: bytes, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that lies from ``start`` to ``end``."""
    place = start
    while place < end:
        tag = content[place]
        if tag < 128:
            place += 1
        else:
            tag, place = _varint(content, place, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < tag < 2**32 or number == 0:
            raise _NotProtobufError(f"field number {number}")
        value, first = 0, place
        if wire in (_VARINT, _LENGTH):
            if place < end and content[place] < 128:
                value, place = content[place], place + 1
            else:
                value, place = _varint(content, place, end)
            if wire == _LENGTH:  # of a message, a text, bytes or packed numbers
                first, place = place, place + value
        elif wire == _FIXED64:
            place += 8
        elif wire == _FIXED32:
            place += 4
        else:
            raise _NotProtobufError(f"wire type {wire}")
        if place > end:
            raise _NotProtobufError("it ends too early")
        yield number, wire, first, place, value


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte; return it and the place after it."""
    value = shift = 0
    while place < end and shift < 70:
        byte = content[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
        shift += 7
    raise _NotProtobufError("it ends too early" if place >= end else "a number of more than 10 bytes")


def _signed(value: int) -> int:
    """Return a 64-bit number in two's complement."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _text(content: bytes, bounds: tuple[int, int] | None) -> str:
    return "" if bounds is None else content[slice(*bounds)].decode(errors="replace")
