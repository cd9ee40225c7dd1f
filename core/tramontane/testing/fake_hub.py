# SPDX-License-Identifier: Apache-2.0
"""A small model hub on the loopback interface, for tests without a network.

It answers what ``huggingface_hub`` asks when it lists and downloads model files: repository information, and files by
HEAD and GET with ranges, entity tags and commit headers. It can refuse like the real one (gated, private, missing,
bad token), be slow, and break off in the middle of a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from attrs import define, field

_INFO = re.compile(r"/api/models/(?P<repository>[^/]+(?:/[^/]+)?)(?:/revision/(?P<revision>.+))?")
_FILE = re.compile(r"/(?P<repository>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@define
class Repository:
    """One model repository of the fake hub.

    Attributes:
        files: Name -> content.
        gated: Files are refused to everyone whose token is not in ``readers``.
        private: The repository seems not to exist to everyone whose token is not in ``readers``.
        readers: Tokens that may read.
        revisions: Branches and tags; every one leads to the one commit.
        claimed_commit: Commit hash to claim instead of the true one.
        claims: Sizes to claim instead of the true ones (for disks that are too small).
    """

    files: Mapping[str, bytes]
    gated: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ("main",)
    claimed_commit: str | None = None
    claims: Mapping[str, int] = field(factory=dict)

    @property
    def commit(self) -> str:
        """A commit hash that follows from the content."""
        if self.claimed_commit is not None:
            return self.claimed_commit
        listing = "".join(f"{name}:{hashlib.sha256(data).hexdigest()};" for name, data in sorted(self.files.items()))
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    def knows(self, revision: str) -> bool:
        """Whether the revision exists."""
        return revision in self.revisions or revision == self.commit


@define(eq=False)
class FakeHub:
    """The server; use it as a context manager.

    Attributes:
        repositories: By name.
        tokens: Tokens that are valid at all.
        delay_s: Pause after each chunk of 16 KiB.
        break_after: Cut the connection after this many bytes of a file, as often as ``breaks`` says.
        status: Answer every request with this status.
        requests: Method, path and range of each request so far.
    """

    repositories: dict[str, Repository] = field(factory=dict)
    tokens: set[str] = field(factory=set)
    delay_s: float = 0.0
    break_after: int | None = None
    breaks: int = 0
    status: int | None = None
    requests: list[tuple[str, str, str | None]] = field(factory=list)
    _server: ThreadingHTTPServer | None = field(default=None, init=False)

    @property
    def endpoint(self) -> str:
        """The hub's address, for ``HF_ENDPOINT``."""
        if self._server is None:
            raise RuntimeError("the fake hub is not running")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fake.requests.append((self.command, path, self.headers.get("Range")))
        if self.fake.status is not None:
            return self._refuse(self.fake.status, "", "the fake hub is out of order")
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") or None
        if token is not None and token not in self.fake.tokens:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return self._owner(token)
        asked_file, asked_info = _FILE.fullmatch(path), _INFO.fullmatch(path)
        asked = asked_file or asked_info
        if asked is None:
            return self._refuse(404, "", "no such page")
        repository = self.fake.repositories.get(asked["repository"])
        if repository is None or (repository.private and token not in repository.readers):
            return self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if not repository.knows(asked["revision"] or "main"):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {asked['revision']}")
        if asked_file is None:
            return self._information(asked["repository"], repository)
        if repository.gated and token not in repository.readers:
            return self._refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted")
        return self._file(repository, asked_file["name"], body=body)

    def _owner(self, token: str | None) -> None:
        if token is None:
            return self._refuse(401, "", "Invalid user token")
        return self._send(200, json.dumps({"name": f"owner-of-{token}", "type": "user"}).encode(), {})

    def _information(self, name: str, repository: Repository) -> None:
        siblings = [
            {"rfilename": file, "size": repository.claims.get(file, len(data)), "blobId": _tag(data)}
            for file, data in sorted(repository.files.items())
        ]
        content = {"id": name, "sha": repository.commit, "siblings": siblings, "private": repository.private}
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, name: str, *, body: bool) -> None:
        data = repository.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound", f"{name} does not exist")
        headers = {"ETag": f'"{_tag(data)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None:
            return self._send(200, data, headers, body=body)
        first = int(start[1])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return self._send(206, data[first:], headers, body=body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        try:
            for position in range(0, len(data), 16384):
                if self.fake.breaks and self.fake.break_after is not None and position >= self.fake.break_after:
                    self.fake.breaks -= 1
                    self.close_connection = True
                    return
                self.wfile.write(data[position : position + 16384])
                if self.fake.delay_s:
                    time.sleep(self.fake.delay_s)
        except OSError:
            self.close_connection = True  # the client went away


def _tag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
