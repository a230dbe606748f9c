"""A server on loopback that speaks as much of the Hugging Face Hub's protocol as downloads and pushes need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits, oldest first, and branches that name them."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add files to what a branch holds; the new commit's name."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        name = hashlib.sha1(f"{branch}{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = {**before, **files}
        self.branches[branch] = name
        return name


@dataclass
class Hub:
    """What the server holds, what it was asked, and how it misbehaves.

    Attributes:
        url: of the server.
        repositories: by `owner/name`.
        requests: (method, path, token) in order.
        cut: for a file, after how many bytes its next answers are cut off, each once.
        etags: wrong ones, by file; "" sends none.
        swapped: what is sent in place of a file's content.
        refuses: status that pushes are answered with; 0 takes them.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    swapped: Files = field(default_factory=dict)
    large: Files = field(default_factory=dict)
    refuses: int = 0

    def asked(self, method: str) -> list[str]:
        """Paths of the requests of one method so far."""
        return [path for kind, path, _ in self.requests if kind == method]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A running server on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_of_huggingface(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A running server that huggingface_hub takes for the Hub, with no token, and a folder for its cache."""
    with serve_hub() as served:
        point_at(served.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # 0.30 has none
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served
        new_session()


def new_session() -> None:
    """Forget connections: sessions of 0.x are made once, for the settings of then."""
    end = getattr(huggingface_hub, "close_session", None) or huggingface_hub.utils.reset_sessions
    end()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # 0.x has a copy
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._file(content=False)

    def do_GET(self) -> None:
        made = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", unquote(self.path.split("?")[0]))
        if made and made[1] in self.hub.repositories:  # 0.x asks how to upload; which files there are
            self._note()
            repository = self.hub.repositories[made[1]]
            commit = repository.branches.get(made[3], made[3])
            files = repository.commits.get(commit, {})
            if made[2] == "tree":
                return self._json(
                    200, [{"type": "file", "path": n, "size": len(data), "oid": "0" * 40} for n, data in files.items()]
                )
            siblings = [{"rfilename": name} for name in files]
            return self._json(200, {"id": made[1], "xetEnabled": False, "sha": commit, "siblings": siblings})
        self._file(content=True)

    def do_PUT(self) -> None:
        self._note()
        data = self._body()
        self.hub.large[hashlib.sha256(data).hexdigest()] = data
        self._answer(200, b"")

    def do_POST(self) -> None:
        self._note()
        body, path = self._body(), unquote(self.path.split("?")[0])
        if self.hub.refuses:
            return self._json(self.hub.refuses, {"error": "not here"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json(200, {"warnings": [], "errors": []})
        if made := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path):
            return getattr(self, f"_{made[2]}")(made[1], made[3], body)
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "actions": {"upload": {"href": f"{self.hub.url}/large/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]
            return self._json(200, {"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")
        return self._json(404, {"error": f"no {path}"})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        known = name in self.hub.repositories
        self.hub.repositories.setdefault(
            name, Repository(private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        )
        self._json(
            409 if known else 200, {"url": f"{self.hub.url}/{name}", "name": name, "error": "exists" if known else None}
        )

    def _preupload(self, name: str, branch: str, body: bytes) -> None:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self._json(200, {"files": files})

    def _branch(self, name: str, branch: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        known = branch in repository.branches
        repository.branches.setdefault(branch, repository.branches.get("main", ""))
        self._json(409 if known else 200, {})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        files: Files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.large[entry["value"]["oid"]]
        commit = self.hub.repositories[name].commit(files, branch)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._json(
            200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None}
        )

    def _file(self, *, content: bool) -> None:
        self._note()
        path = unquote(self.path.split("?")[0])
        made = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repository = self.hub.repositories.get(made[1]) if made else None
        if made is None or repository is None or (repository.private and self._token() is None):
            return self._missing(404, "RepoNotFound", content)
        if repository.gated and self._token() is None:
            return self._missing(403, "GatedRepo", content)
        commit = repository.branches.get(made[2], made[2])
        if commit not in repository.commits:
            return self._missing(404, "RevisionNotFound", content)
        file, files = made[3], repository.commits[commit]
        if file not in files:
            return self._missing(404, "EntryNotFound", content, commit)
        data = self.hub.swapped.get(file, files[file])
        etag = self.hub.etags.get(file, hashlib.sha256(files[file]).hexdigest())
        start = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if content and "Range" in self.headers else 0
        )
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not content:
            return
        cuts = self.hub.cut.get(file, [])
        if not cuts:
            self.wfile.write(data[start:])
            return
        self.wfile.write(data[start:][: cuts.pop(0)])
        self.wfile.flush()
        self.close_connection = True

    def _missing(self, status: int, code: str, content: bool, commit: str | None = None) -> None:
        extra = {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})}
        self._answer(status, json.dumps({"error": code}).encode() if content else b"", **extra)

    def _json(self, status: int, value: object, *, kind: str = "application/json") -> None:
        self._answer(status, json.dumps(value).encode(), **{"Content-Type": kind})

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _note(self) -> None:
        self.hub.requests.append((self.command, unquote(self.path), self._token()))
