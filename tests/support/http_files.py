"""A web server on loopback that gives the files of a folder, with and without parts of them (Range)."""

import contextlib
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def run_files(
    folder: Path, *, ranges: bool = True, context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[int]]]:
    """Run the server for a ``with`` block; give its address, and the list of lengths of bodies that it has sent.

    Parameters
    ----------
    folder
        Its files.
    ranges
        Whether it answers requests for parts of files.
    context
        Its certificate, of ``localhost``, where it speaks TLS.
    """
    sent: list[int] = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            path = Path(self.translate_path(self.path))
            if not path.is_file():
                self._answer(404, b"")
                return
            content = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if asked is None or not ranges:
                self._answer(200, content)
                return
            start = int(asked[1]) if asked[1] else len(content) - int(asked[2])
            stop = min(int(asked[2]) + 1, len(content)) if asked[1] and asked[2] else len(content)
            self._answer(206, content[start:stop], f"bytes {start}-{stop - 1}/{len(content)}")

        def _answer(self, status: int, body: bytes, part: str = "") -> None:
            sent.append(len(body))
            self.send_response(status)
            if part:
                self.send_header("Content-Range", part)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http://127.0.0.1' if context is None else 'https://localhost'}:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
