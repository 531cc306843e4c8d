"""A Hugging Face hub on loopback: the part of its HTTP interface by which huggingface_hub shares and gets models.

Who may write has the token `TOKEN`; what is private is open to it alone. Large files go the way of the real hub: as LFS
objects, behind a redirect. It keeps everything in memory, and ends with its ``with`` block.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_a_test"
OWNERS = ("lab", "me")
"""Names below which who has the token may write."""

LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "other")
_LARGE = 10_000
"""Bytes from which a file that is no text is an LFS object."""


@dataclass
class Repo:
    """A repository: its commits, each the files by path, and what is called by names."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Make a commit of main; return its name."""
        seed = json.dumps([len(self.commits), sorted((name, _blob(content)) for name, content in files.items())])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = files
        self.refs["main"] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a commit."""
        return self.refs.get(revision, revision if revision in self.commits else None)


class FalseHub:
    """What a hub holds, and what it was asked.

    Attributes
    ----------
    address
        Of the server.
    repos
        Repositories by owner and name.
    objects
        Contents of LFS objects by digest.
    asked
        Method and path of every request.
    """

    def __init__(self) -> None:
        self.address = ""
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def store(self) -> str:
        """Address of LFS objects: another host than the hub's, as for the real one, which gets no token."""
        return self.address.replace("127.0.0.1", "localhost")

    def files(self, name: str) -> dict[str, bytes]:
        """Return the files of a repository's main branch."""
        repo = self.repos[name]
        return repo.commits[repo.refs["main"]]

    def change(self, name: str, files: dict[str, bytes | None]) -> str:
        """Make a commit by hand: files by path; `None` takes one away."""
        new = self.files(name) | files
        return self.repos[name].commit({path: content for path, content in new.items() if content is not None})


@contextlib.contextmanager
def run_hub() -> Iterator[FalseHub]:
    """Run a hub for a ``with`` block."""
    hub = FalseHub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(hub: FalseHub, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Return the variables by which huggingface_hub finds a hub, and keeps what is its own in a folder."""
    found = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return found | ({"HF_TOKEN": token} if token else {})


def use_hub(patch: pytest.MonkeyPatch, address: str, home: Path, token: str | None = TOKEN) -> None:
    """Do in this process what `environment` does for another: huggingface_hub reads variables when it is imported."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    if token:
        patch.setenv("HF_TOKEN", token)
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)


class _Handler(BaseHTTPRequestHandler):
    """Routes; each answers, or refuses as the real hub does: with a code of the error in a header."""

    protocol_version = "HTTP/1.1"
    state: FalseHub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.state.lock:
            self.state.asked.append(f"{self.command} {path}")
            for method, pattern, action in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    getattr(self, action)(*found.groups(), body)
                    return
            self._refuse(404, "", f"no route for {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815

    # -- writing -------------------------------------------------------------------------------------------------------

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(name):
            return
        if name in self.state.repos:
            self._answer({"error": "You already created this model repo", "url": self._url(name)}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.state.repos[name] = Repo(private)
        self.state.repos[name].commit({".gitattributes": b"*.onnx filter=lfs\n"})
        self._answer({"url": self._url(name)})

    def _validate(self, body: bytes) -> None:
        found = re.search(r"^license: (.*)$", json.loads(body)["content"], re.MULTILINE)
        known = found is not None and found[1].strip('"') in LICENSES
        wrong = [] if known else [{"message": '"license" must be one of [apache-2.0, ...]'}]
        self._answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def _preupload(self, name: str, _: str, body: bytes) -> None:
        if not self._may_write(name):
            return
        there = self.state.files(name)
        answers = []
        for each in json.loads(body)["files"]:
            path = each["path"]
            told = {"path": path, "shouldIgnore": False}
            told["uploadMode"] = "lfs" if _is_large(path, each["size"]) else "regular"
            answers.append(told | ({"oid": _oid(path, there[path])} if path in there else {}))
        self._answer({"files": answers})

    def _batch(self, name: str, body: bytes) -> None:
        if not self._may_write(name):
            return
        objects = [
            {"oid": each["oid"], "size": each["size"]}
            | (
                {}
                if each["oid"] in self.state.objects
                else {"actions": {"upload": {"href": f"{self.state.address}/put/{each['oid']}"}}}
            )
            for each in json.loads(body)["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, body: bytes) -> None:
        self.state.objects[oid] = body
        self._answer({})

    def _commit(self, name: str, _: str, body: bytes) -> None:
        if not self._may_write(name):
            return
        files = dict(self.state.files(name))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.state.repos[name].commit(files)
        self._answer({"commitUrl": f"{self._url(name)}/commit/{oid}", "commitOid": oid, "hookOutput": ""})

    # -- reading -------------------------------------------------------------------------------------------------------

    def _info(self, name: str, revision: str | None, _: bytes) -> None:
        commit = self._find(name, revision or "main")
        if commit is not None:
            repo = self.state.repos[name]
            siblings = [{"rfilename": path} for path in repo.commits[commit]]
            self._answer({"id": name, "sha": commit, "private": repo.private, "siblings": siblings, "tags": []})

    def _tree(self, name: str, revision: str, _: bytes) -> None:
        commit = self._find(name, revision)
        if commit is not None:
            entries = []
            for path, content in self.state.repos[name].commits[commit].items():
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
                if _is_large(path, len(content)):
                    entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 132}
                entries.append(entry)
            self._answer(entries)

    def _resolve(self, name: str, revision: str, path: str, _: bytes) -> None:
        commit = self._find(name, revision)
        if commit is None:
            return
        content = self.state.repos[name].commits[commit].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound", f"no {path}", {"X-Repo-Commit": commit})
            return
        told = {"X-Repo-Commit": commit, "ETag": f'"{_oid(path, content)}"'}
        if not _is_large(path, len(content)):
            self._send(200, content, told)
            return
        self.state.objects[_sha256(content)] = content
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{_sha256(content)}"'}
        self._send(302, b"", told | linked | {"Location": f"{self.state.store}/get/{_sha256(content)}"})

    def _get(self, oid: str, _: bytes) -> None:
        assert "authorization" not in self.headers
        self._send(200, self.state.objects[oid], {"ETag": f'"{oid}"'})

    # -- answers -------------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _may_write(self, name: str) -> bool:
        if not self._known:
            self._refuse(401, "", "Invalid username or password.")
        elif name.partition("/")[0] not in OWNERS:
            self._refuse(403, "", f"You don't have the rights to create a model under {name.partition('/')[0]}")
        else:
            return True
        return False

    def _find(self, name: str, revision: str) -> str | None:
        """Return a commit, or refuse: what is not there and what is private look the same to strangers."""
        repo = self.state.repos.get(name)
        if repo is None or (repo.private and not self._known):
            self._refuse(404 if self._known else 401, "RepoNotFound", "Repository not found")
            return None
        commit = repo.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _url(self, name: str) -> str:
        return f"{self.state.address}/{name}"

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), told | (headers or {}))

    def _answer(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("POST", "/api/repos/create", "_create"),
    ("POST", "/api/validate-yaml", "_validate"),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", "_preupload"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "_batch"),
    ("PUT", "/put/([0-9a-f]{64})", "_put"),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", "_commit"),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)", "_tree"),
    ("GET", rf"/api/models/{_NAME}(?:/revision/(.+))?", "_info"),
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", "_resolve"),
    ("GET", "/get/([0-9a-f]{64})", "_get"),
)
"""Methods, path, and what answers."""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    """Name a file as git does."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path: str, size: int) -> bool:
    return size >= _LARGE and not path.endswith((".json", ".md"))


def _oid(path: str, content: bytes) -> str:
    """Name a file as the hub does: an LFS object by its own digest."""
    return _sha256(content) if _is_large(path, len(content)) else _blob(content)
