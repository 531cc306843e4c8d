"""Servers that are no Triton, or a sick or hostile one: each answers a request in one wrong way.

Those of HTTP write bytes to a socket, so that nothing corrects them; those of gRPC are generic handlers, or write bytes
too. All listen on loopback, on a port of their own, and end with the block.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
"""What a true server answers for output ``y``, and what tests send as input ``x``."""

WANTED = {"y": ("float32", ROWS.shape)}

_INDEX = [{"name": "model", "version": "1", "state": "READY"}]
_STATISTICS = {"model_stats": [{"name": "model", "inference_count": 3, "inference_stats": {}}]}


@dataclass(frozen=True)
class Asked:
    """A request, as far as false servers look at it."""

    method: str
    path: str
    headers: Mapping[str, str]


Behaviour = Callable[[socket.socket, Asked], None]


def inference(change: Callable[[dict[str, Any]], None] = lambda answer: None) -> bytes:
    """JSON of a true answer to an inference, changed."""
    answer = {
        "model_name": "model",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": ROWS.nbytes}}
        ],
    }
    change(answer)
    return json.dumps(answer).encode()


def response(content: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """Bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def binary(header: bytes, body: bytes = ROWS.tobytes(), length: str | None = None) -> bytes:
    """Bytes of an HTTP answer to an inference."""
    stated = str(len(header)) if length is None else length
    extra = [f"Inference-Header-Content-Length: {stated}"] if stated else []
    return response(header + body, *extra, kind="application/octet-stream")


def truth(asked: Asked) -> bytes:
    """What a true server answers."""
    if asked.path.endswith("/infer"):
        return binary(inference())
    said: Any = {
        "/v2": {"name": "triton", "version": "2.99.0", "extensions": []},
        "/v2/health/ready": {},
        "/v2/repository/index": _INDEX,
        "/v2/models/stats": _STATISTICS,
        "/v2/models/model/config": {"name": "model", "max_batch_size": 8},
    }.get(asked.path)
    if said is None:
        return response(b'{"error":"not found"}', status="404 Not Found")
    return response(json.dumps(said).encode())


def drip(sock: socket.socket, content: bytes) -> None:
    """Write a byte every 50 ms: each comes before any timeout of a socket, and all of them for longer than a minute."""
    for place in range(len(content)):
        sock.sendall(content[place : place + 1])
        time.sleep(0.05)


def pour(sock: socket.socket, content: bytes, seconds: float = 20.0) -> None:
    """Write the same again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sock.sendall(content)


def says(content: bytes) -> Behaviour:
    """Answer with these bytes, and close."""
    return lambda sock, asked: sock.sendall(content)


def _true_then(head: int, rest: Callable[[socket.socket, bytes], None]) -> Behaviour:
    """Send the first bytes of a true answer, then something else; a negative ``head`` counts from the body's start."""

    def behave(sock: socket.socket, asked: Asked) -> None:
        content = truth(asked)
        place = head if head >= 0 else content.index(b"\r\n\r\n") + 3 - head
        sock.sendall(content[:place])
        rest(sock, content[place:])

    return behave


def _reset(sock: socket.socket, asked: Asked) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _echoed(sock: socket.socket, asked: Asked) -> None:
    sock.sendall(f"HTTP/1.1 200 {asked.method}\r\n\r\n{asked.path}".encode())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Sign in</body></html>"
_BOMB = gzip.compress(bytes(200 << 20), 1)  # 200 MB of zeros

SLOW: dict[str, Behaviour] = {
    "says nothing": lambda sock, asked: time.sleep(20),
    "drips its status": _true_then(0, drip),
    "drips its headers": _true_then(20, drip),
    "drips its content": _true_then(-1, drip),
    "drips chunks": lambda sock, asked: (sock.sendall(CHUNKED), drip(sock, b"1\r\n \r\n" * 500)),
    "drips trailers": lambda sock, asked: (sock.sendall(CHUNKED + b"0\r\n"), drip(sock, b"X: y\r\n" * 500)),
    "always goes on": lambda sock, asked: drip(sock, b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
}
"""Those that a timeout of a socket does not end."""

ENDLESS: dict[str, Behaviour] = {
    "continues without end": lambda sock, asked: pour(sock, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "headers without end": lambda sock, asked: (sock.sendall(HEAD), pour(sock, b"X-Header: y\r\n" * 1000)),
    "a header without end": lambda sock, asked: (sock.sendall(HEAD + b"X: "), pour(sock, b"y" * 100_000)),
    "trailers without end": lambda sock, asked: (sock.sendall(CHUNKED + b"0\r\n"), pour(sock, b"X: y\r\n" * 5000)),
    "content without end": lambda sock, asked: (sock.sendall(HEAD + b"\r\n"), pour(sock, b" " * (1 << 20))),
    "chunks without end": lambda sock, asked: (
        sock.sendall(CHUNKED),
        pour(sock, b"100000\r\n" + b" " * (1 << 20) + b"\r\n"),
    ),
    "chunk of negative size": lambda sock, asked: (sock.sendall(CHUNKED + b"-1\r\n"), pour(sock, b" " * (1 << 20))),
    "content of a terabyte": says(HEAD + b"Content-Length: 1000000000000\r\n\r\n"),
    "content of a gigabyte": lambda sock, asked: (
        sock.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\n"),
        pour(sock, b" " * (1 << 20)),
    ),
    "a gzip bomb": says(response(_BOMB, "Content-Encoding: gzip")),
    "a deflate bomb": says(response(_BOMB, "Content-Encoding: deflate")),
    "twice gzipped": says(response(gzip.compress(_BOMB), "Content-Encoding: gzip, gzip")),
    "a refusal without end": lambda sock, asked: (
        sock.sendall(b"HTTP/1.1 400 Bad\r\nContent-Type: text/html\r\n\r\n"),
        pour(sock, b"<b>" * (1 << 18)),
    ),
}
"""Those that fill memory if they are read."""

STRANGE: dict[str, Behaviour] = {
    "a page": says(response(PAGE, kind="text/html")),
    "a page, not found": says(response(PAGE, status="404 Not Found", kind="text/html")),
    "a page, an error": says(response(PAGE, status="500 Internal Server Error", kind="text/html")),
    "nothing": says(response(b"")),
    "no content": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "partial content": says(response(b"{}", status="206 Partial Content")),
    "other protocols": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    "a list of numbers": says(response(b"[1, 2, 3]")),
    "null": says(response(b"null")),
    "a number": says(response(b"1")),
    "a text": says(response(b'"ok"')),
    "another program's JSON": says(response(b'{"status": "ok"}')),
    "a mapping of null": says(response(b'{"outputs": null, "version": null, "model_stats": null}')),
    "deep JSON": says(response(b"[" * 200_000)),
    "deep JSON, whole": says(response(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)),
    "half of JSON": says(response(b'{"outputs": [{"name": "y", ')),
    "bytes that are no text": says(response(bytes(range(128, 256)))),
    "NaN": says(response(b"NaN")),
    "gzip that it does not name": says(response(gzip.compress(b"{}"))),
    "Content-Length: -1": says(HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "Content-Length: many": says(HEAD + b"Content-Length: many\r\n\r\n{}"),
    "a greeting of SSH": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "frames of HTTP/2": says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64" * 4),
    "an alert of TLS": says(b"\x15\x03\x01\x00\x02\x02\x46\r\n"),
    "HTTP/0.9": says(b"<html>hello</html>\n"),
    "HTTP/9": says(b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "a status of four digits": says(b"HTTP/1.1 2000 OK\r\n\r\n{}"),
    "its own request": _echoed,
    "headers that are none": says(b"HTTP/1.1 200 OK\r\n\xff\xfe\x00: \x00\r\n: x\r\n\r\n"),
}
"""Those that answer at once, and say nothing that a Triton says."""

FINAL: dict[str, tuple[Behaviour, str]] = {
    "moved": (says(b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.example\r\n\r\n"), "'http://elsewhere.example'"),
    "moved for now": (
        says(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2\r\nContent-Length: 0\r\n\r\n"),
        "not followed",
    ),
    "moved nowhere": (says(b"HTTP/1.1 302 Found\r\n\r\n"), "not followed"),
    "wants a token": (
        says(response(PAGE, status="401 Unauthorized", kind="text/html")),
        "give an authorization header",
    ),
    "forbidden": (says(response(PAGE, status="403 Forbidden", kind="text/html")), "give an authorization header"),
    "too large": (says(response(PAGE, status="413 Too Large", kind="text/html")), "--http-max-input-size"),
    "refuses": (says(response(b'{"error": "no"}', status="400 Bad Request")), r"refused the request \(400\): no"),
    "fails": (says(response(b'{"error": "oh"}', status="500 Internal")), r"refused the request \(500\): oh"),
    "clears the terminal": (
        says(response(b'{"error": "\\u001b[2J\\u001b]0;x\\u0007"}', status="400 Bad Request")),
        r"refused the request \(400\):  \[2J \]0;x $",
    ),
    "a refusal of a megabyte": (
        says(response(b'{"error": "' + b"x" * 1_000_000 + b'"}', status="400 Bad Request")),
        "not a Triton answer",
    ),
}
"""Those that say no, and what is told then."""

UNAVAILABLE: dict[str, Behaviour] = {
    "closes at once": lambda sock, asked: None,
    "resets": _reset,
    "closes within its content": _true_then(-3, lambda sock, rest: None),
    "closes within a chunk": says(CHUNKED + b"ff\r\n{"),
    "a chunk of size xyz": says(CHUNKED + b"xyz\r\n{}\r\n0\r\n\r\n"),
    "a gateway without servers": says(response(PAGE, status="502 Bad Gateway", kind="text/html")),
    "a service away": says(response(PAGE, status="503 Service Unavailable", kind="text/html")),
    "stops": says(response(b'{"error": "Server is stopping"}', status="400 Bad Request")),
}
"""Those where another try may succeed."""

BUSY: dict[str, Behaviour] = {
    "a gateway's limit": says(response(PAGE, "Retry-After: 1", status="429 Too Many Requests", kind="text/html")),
    "a limit in JSON": says(response(b'{"error": "slow down"}', status="429 Too Many Requests")),
    "a full queue": says(response(b'{"error": "Exceeds maximum queue size"}', status="503 Service Unavailable")),
}
"""Those that have too much to do."""


def _output(**fields: Any) -> bytes:
    return binary(inference(lambda answer: answer["outputs"][0].update(fields)))


def _size(size: object) -> bytes:
    return _output(parameters={"binary_data_size": size})


_MORE = {"name": "z", "datatype": "FP32", "shape": []}

WRONG_INFERENCES: dict[str, bytes] = {
    "no length of its JSON": binary(inference(), length=""),
    "a length beyond its content": binary(inference(), length="100000"),
    "a negative length": binary(inference(), length="-5"),
    "a length in words": binary(inference(), length="long"),
    "a length of many digits": binary(inference(), length="9" * 5000),
    "a length in other digits": binary(inference(), length="\u00b2"),
    "a length of nothing": binary(inference(), length="0"),
    "a length too short": binary(inference(), length="20"),
    "bytes less": binary(inference(), ROWS.tobytes()[:-1]),
    "bytes more": binary(inference(), ROWS.tobytes() + b"1"),
    "no bytes": binary(inference(), b""),
    "a size of half": _size(12),
    "a size of a terabyte": _size(10**12),
    "a negative size": _size(-1),
    "a size in words": _size("24"),
    "a size that is true": _size(True),
    "no size": _output(parameters={}),
    "arrays in JSON": _output(parameters={}, data=[0, 1, 2, 3, 4, 5]),
    "another output": _output(name="z"),
    "a name that is none": _output(name=None),
    "another type": _output(datatype="INT64"),
    "an unknown type": _output(datatype="FLOAT"),
    "another shape": _output(shape=[3, 2]),
    "a shape flat": _output(shape=[6]),
    "a shape of one row": _output(shape=[1, 3]),
    "a shape with a hole": _output(shape=[2, -1]),
    "a shape beyond all": _output(shape=[2**62, 2**62]),
    "a shape of fractions": _output(shape=[2.5, 3]),
    "a shape in words": _output(shape="2x3"),
    "no outputs": binary(inference(lambda answer: answer.pop("outputs"))),
    "empty outputs": binary(inference(lambda answer: answer["outputs"].clear())),
    "an output twice": binary(inference(lambda answer: answer["outputs"].extend(answer["outputs"]))),
    "an output more": binary(inference(lambda answer: answer["outputs"].append(_MORE))),
    "outputs by name": binary(inference(lambda answer: answer.update(outputs={"y": answer["outputs"][0]}))),
    "JSON alone": response(inference()),
}
"""Answers to an inference that are not what was asked for."""


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a thread of its own; gives the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        opened: list[socket.socket] = []

        def run(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), sock:
                serve(sock)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                opened.append(sock)
                threading.Thread(target=run, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for sock in opened:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def http_server(behaviour: Behaviour, lies: Callable[[Asked], bool] = lambda asked: True) -> Iterator[str]:
    """A server that misbehaves at the requests that ``lies`` picks, and answers others truly; gives its address."""

    def serve(sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        while line := stream.readline():
            method, path, _ = line.decode().split(" ", 2)
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            stream.read(int(headers.get("content-length", 0)))
            asked = Asked(method, path, headers)
            if lies(asked):
                behaviour(sock, asked)
                return
            sock.sendall(truth(asked))

    with listening(serve) as port:
        yield f"http://127.0.0.1:{port}"


# -- gRPC --------------------------------------------------------------------------------------------------------------


def grpc_inference(**fields: Any) -> bytes:
    """Bytes of a true answer to an inference, with fields of its output changed (``raw``: the bytes of all)."""
    raw = fields.pop("raw", [ROWS.tobytes()])
    output = {"name": "y", "datatype": "FP32", "shape": [2, 3]} | fields
    return service_pb2.ModelInferResponse(
        model_name="model", outputs=[output], raw_output_contents=raw
    ).SerializeToString()


@contextlib.contextmanager
def grpc_server(answer: Callable[[str, grpc.ServicerContext], bytes], **options: Any) -> Iterator[str]:
    """A server whose every method answers with bytes; ``answer`` gets the method's name. Gives its address."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            name = details.method.rpartition("/")[2]
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(name, context))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Handler()], options=[("grpc.so_reuseport", 0)], **options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


_POUR = """
import time
from false_servers import grpc, grpc_inference, grpc_server
bomb = grpc_inference(raw=[bytes(4 * {count})], shape={shape})
with grpc_server(lambda method, context: bomb, compression=grpc.Compression.{compression}) as location:
    print(location, flush=True)
    input()
"""


@contextlib.contextmanager
def grpc_bomb(shape: list[int], compression: str = "NoCompression") -> Iterator[str]:
    """A server that answers with so many zeros, in a process of its own, whose memory is not this one's."""
    program = _POUR.format(count=math.prod(shape), shape=shape, compression=compression)
    command = [sys.executable, "-c", program]
    folder = Path(__file__).parent
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def refuses(code: grpc.StatusCode, message: str) -> Callable[[str, grpc.ServicerContext], bytes]:
    """Answer with a status."""

    def answer(name: str, context: grpc.ServicerContext) -> bytes:
        context.abort(code, message)
        raise AssertionError

    return answer
