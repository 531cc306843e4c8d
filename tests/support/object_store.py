"""An S3 server on loopback (moto's), in a process of its own, and a proxy before it that spoils what it is told to."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()  # ends when who started it does
"""


@contextlib.contextmanager
def run_moto() -> Iterator[str]:
    """Run moto's server for a ``with`` block, and give its address."""
    words = [sys.executable, "-W", "ignore", "-c", _SERVER]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        host, port = server.stdout.readline().split()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stdin.close()
            server.terminate()


def settings(address: str) -> dict[str, str]:
    """Return the environment by which clients find a server."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", **keys}


def google_settings(address: str) -> dict[str, str]:
    """Return the environment by which clients of Google's service find a server that asks nobody who he is."""
    key = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}


def make_bucket(address: str, name: str) -> str:
    """Make a bucket, and return its URL."""
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")).close()
    return f"s3://{name}"


def objects(url: str) -> dict[str, bytes]:
    """Read all objects below a URL, by name; the environment tells the server."""
    store = store_of(url)
    names = [each["path"] for batch in store.list() for each in batch]
    return {name: bytes(store.get(name).bytes()) for name in sorted(names)}


def store_of(url: str) -> Any:
    """Open obstore's store below a URL; the environment tells the server."""
    from obstore.store import S3Store

    parts = urlsplit(url)
    prefix = parts.path.strip("/") or None
    return S3Store(parts.netloc, prefix=prefix, client_options={"allow_http": "true"})


class SpoiledError(Exception):
    """The answer of a proxy in place of the server's: a status, or `None` for a connection that breaks."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


@contextlib.contextmanager
def run_proxy(
    address: str,
    spoil: Callable[[str, str, dict[str, str]], None],
    answered: Callable[[dict[str, str]], None] = lambda headers: None,
) -> Iterator[str]:
    """Run a proxy before a server for a ``with`` block, and give its address.

    Parameters
    ----------
    address
        The server.
    spoil
        Called with method, path and headers of every request; may change the headers, or raise `SpoiledError`.
    answered
        Called with the headers of every answer, and may change them.
    """
    parts = urlsplit(address)
    assert parts.hostname is not None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            length = int(headers.get("content-length", 0))
            try:
                spoil(self.command, self.path, headers)
            except SpoiledError as spoiled:
                self._break(spoiled.status, length)
                return
            connection = http.client.HTTPConnection(parts.hostname, parts.port)
            connection.request(self.command, self.path, self.rfile.read(length), headers)
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            given = {name.lower(): value for name, value in answer.getheaders()}
            answered(given)
            for name, value in given.items():
                if name not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                    self.send_header(name, value)
            size = answer.getheader("content-length") if self.command == "HEAD" else str(len(body))
            self.send_header("content-length", size or "0")
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def _break(self, status: int | None, length: int) -> None:
            self.close_connection = True
            if status is None:
                self.rfile.read(length // 2)  # in the middle of what is put
                return
            self.rfile.read(length)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def run_google(address: str) -> Iterator[str]:
    """Run a proxy by which an S3 server has the conditions of Google's XML interface: generations in place of ETags."""
    tags: dict[str, str] = {"0": ""}

    def ask(method: str, path: str, headers: dict[str, str]) -> None:
        headers["authorization"] = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
        generation = headers.pop("x-goog-if-generation-match", None)
        if generation == "0":
            headers["if-none-match"] = "*"
        elif generation is not None:
            headers["if-match"] = tags[generation]

    def answer(headers: dict[str, str]) -> None:
        if "etag" in headers:
            headers["x-goog-generation"] = generation = str(int(headers["etag"].strip('"')[:14], 16))
            tags[generation] = headers["etag"]

    with run_proxy(address, ask, answer) as proxy:
        yield proxy


def strip_conditions(method: str, path: str, headers: dict[str, str]) -> None:
    """Take the conditions off every put, as a server does that does not know them."""
    if method == "PUT":
        headers.pop("if-match", None)
        headers.pop("if-none-match", None)


def refuse_writing(method: str, path: str, headers: dict[str, str]) -> None:
    """Refuse whatever writes, as to a user who may read alone."""
    if method in ("PUT", "DELETE"):
        raise SpoiledError(403)
