"""Answers of servers, damaged in every place, through the reader of each protocol: an array as asked for, or told."""

import io
import json
from http.client import HTTPResponse

import numpy as np
from false_servers import ROWS, WANTED, WRONG_INFERENCES, binary, grpc_inference, inference, response
from fuzzing import inputs, tried
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from causcell.engine.triton import grpc_transport
from causcell.engine.triton.client import _read_statistics, _read_status
from causcell.engine.triton.connection import parse_location
from causcell.engine.triton.failures import show, translate_failure
from causcell.engine.triton.http_transport import check_head, read_bounded, read_inference, translated
from causcell.engine.triton.messages import CONFIG, INDEX, METADATA, REGIONS, STATISTICS
from causcell.errors import EngineError

(ADDRESS,) = parse_location("http://localhost:8000")

TRUE = {
    METADATA: {"name": "triton", "version": "2.51.0", "extensions": ["statistics"]},
    INDEX: [{"name": "decoder", "version": "1", "state": "READY"}, {"name": "scm", "state": "X", "reason": "x"}],
    CONFIG: {
        "name": "decoder",
        "max_batch_size": 1024,
        "instance_group": [{"name": "decoder", "count": 2, "kind": "KIND_CPU"}],
        "dynamic_batching": {"max_queue_delay_microseconds": "100"},
        "parameters": {"causcell.digest": {"string_value": "0" * 64}},
    },
    STATISTICS: {
        "model_stats": [
            {
                "name": "decoder",
                "inference_count": "12",
                "execution_count": 3,
                "inference_stats": {"success": {"count": 3, "ns": 100}, "queue": {"count": 3, "ns": 7}},
            }
        ]
    },
    REGIONS: [{"name": "causcell-1", "key": "/psm_1", "offset": 0, "byte_size": 100}],
}

_HUGE = [2**31, 2**32, 2**62, 2**63, 2**64, 10**30, -(2**63), 10**300, 0.5, 1e308, float("nan"), float("inf")]
_TEXTS = ["y", "FP32", "24", "", "-1", "9" * 5000]
LEAVES = st.none() | st.booleans() | st.integers(-3, 30) | st.sampled_from(_HUGE + _TEXTS) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "shape", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Bytes of an answer with parts cut out, doubled, or written over."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(found)))
        length = draw(st.integers(0, 12))
        new = draw(
            st.binary(max_size=6) | st.sampled_from([b"\r\n", b"\r\n\r\n", b":", b"-1", b"99999999999", b"\x00"])
        )
        kind = draw(st.sampled_from(["over", "cut", "in", "end", "twice"]))
        if kind == "over":
            found[place : place + len(new)] = new
        elif kind == "cut":
            del found[place : place + length]
        elif kind == "in":
            found[place:place] = new
        elif kind == "end":
            del found[max(place, 1) :]
        else:
            found[place:place] = found[place : place + 10 * length]
    return bytes(found)


@st.composite
def changed(draw, answer: object) -> object:
    """JSON with one value, somewhere in it, replaced, left out, or renamed."""
    found = json.loads(json.dumps(answer))
    node, steps = found, draw(st.integers(0, 4))
    for _ in range(steps):
        inner = [
            value for value in (node.values() if isinstance(node, dict) else node) if isinstance(value, dict | list)
        ]
        if not inner:
            break
        node = draw(st.sampled_from(inner))
    if not node or draw(st.integers(0, 20)) == 0:
        return draw(VALUES)
    key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
    if kind == "replace":
        node[key] = draw(VALUES)
    elif kind == "remove" or isinstance(node, list):
        del node[key]
    else:
        node[draw(st.text(max_size=4))] = node.pop(key)
    return found


class Received:
    """A socket as far as `http.client` reads one: what a server sent, and the end."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def opened(content: bytes) -> HTTPResponse:
    found = HTTPResponse(Received(content), method="POST")
    found.begin()
    check_head(ADDRESS, found)
    return found


def check_http(content: bytes) -> None:
    with tried("answers to inferences over HTTP"), translated(ADDRESS):
        found = read_inference(ADDRESS, opened(content), WANTED, {})
        assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == WANTED


@inputs(700)
@given(damaged(binary(inference())))
@example(binary(inference()))
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
def test_damaged_bytes_of_an_inference_are_told(content):
    """In its status, its headers, its JSON or its arrays."""
    check_http(content)


@inputs(500)
@given(changed(json.loads(inference())), st.binary(max_size=30) | st.just(ROWS.tobytes()))
def test_changed_json_of_an_inference_is_told(answer, body):
    check_http(binary(json.dumps(answer).encode(), body))


def test_every_wrong_inference_is_told():
    for content in WRONG_INFERENCES.values():
        check_http(content)


@inputs(500)
@given(st.data(), st.sampled_from(sorted(TRUE, key=list(TRUE).index)))
def test_changed_json_about_models_is_told(data, shape):
    """What is taken has the types that the client reckons with."""
    answer = data.draw(changed(TRUE[shape]))
    with tried("answers about models"), translated(ADDRESS):
        found = shape.read(read_bounded(opened(response(json.dumps(answer).encode())), 1 << 20))
        if shape is CONFIG:
            json.dumps(_read_status({"name": "decoder"}, found))
        if shape is STATISTICS:
            json.dumps([_read_statistics(each) for each in found["model_stats"]])


@inputs(200)
@given(damaged(json.dumps(TRUE[CONFIG]).encode()))
def test_damaged_json_about_models_is_told(content):
    with tried("answers about models"), translated(ADDRESS):
        CONFIG.read(content)


def check_grpc(content: bytes) -> None:
    with tried("answers to inferences over gRPC"), translated(ADDRESS):
        try:
            message = service_pb2.ModelInferResponse.FromString(content)
        except DecodeError as error:  # gRPC's own reader, which the transport translates
            raise EngineError("no message") from error
        found = grpc_transport.read_inference(message, WANTED, {})
        assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == WANTED


@inputs(300)
@given(damaged(grpc_inference()))
@example(grpc_inference())
def test_damaged_messages_of_grpc_are_told(content):
    check_grpc(content)


@inputs(400)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["y", "z", "", "\u00e9"]),
                "datatype": st.sampled_from(["FP32", "FP64", "BYTES", "", "fp32"]),
                "shape": st.lists(st.sampled_from([2, 3, 0, -1, 1, 6, 2**62]), max_size=3) | st.just([2, 3]),
            }
        ),
        max_size=3,
    ),
    st.lists(st.binary(max_size=30) | st.just(ROWS.tobytes()), max_size=3),
)
def test_messages_of_grpc_with_other_fields_are_told(outputs, raw):
    message = service_pb2.ModelInferResponse(outputs=outputs, raw_output_contents=raw)
    check_grpc(message.SerializeToString())


STATUSES = [
    "StatusCode.UNAVAILABLE",
    "StatusCode.RESOURCE_EXHAUSTED",
    "StatusCode.INTERNAL",
    "400",
    "413",
    "503",
    "999",
]


@inputs(300)
@given(
    st.text(max_size=60) | st.sampled_from(["Exceeds maximum queue size", "larger than max", "\x1b[2J"]),
    st.sampled_from(STATUSES),
)
def test_whatever_a_server_says_becomes_one_printable_line(message, status):
    with tried("refusals of servers"):
        told = translate_failure(ADDRESS, status, message)
        assert str(told).isprintable()
        assert show(message).isprintable()
        raise told


def test_a_true_answer_is_read():
    """The reader that is tried here takes what it should."""
    found = read_inference(ADDRESS, opened(binary(inference())), WANTED, {})
    np.testing.assert_array_equal(found["y"], ROWS, strict=True)
    message = service_pb2.ModelInferResponse.FromString(grpc_inference())
    np.testing.assert_array_equal(grpc_transport.read_inference(message, WANTED, {})["y"], ROWS, strict=True)
    for shape, answer in TRUE.items():
        assert shape.read(json.dumps(answer).encode())
