# SPDX-License-Identifier: Apache-2.0
"""Runs the tests that come with the vendors' SDKs against a URL, in the clients' own environment.

They know names that a real server has never given out: a response, a file, models. :class:`Prepared` stands before the
server and puts back what a test is about to ask for, so that retrieving, listing and deleting have something to do.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from tramontane_frontend_openai.store import Store, StoredFile, StoredResponse

RESPONSES, FILE, MODEL = ("resp_677efb5139a88190b512bc3fef8e535d", "response_id"), "file_id", "model_id"
EXCEPTIONS = Path(__file__).parent / "sdk_exceptions.toml"
PATHS = {
    "openai": (
        "chat/test_completions.py", "test_completions.py", "test_responses.py", "responses", "test_embeddings.py",
        "test_models.py", "test_files.py",
    ),
    "anthropic": ("test_messages.py", "beta/test_messages.py", "test_models.py"),
}  # fmt: skip
BASES = {"openai": "/v1", "anthropic": ""}


@frozen
class Sdk:
    """The unpacked source of a vendor's SDK, and a Python that can run its tests."""

    vendor: str
    folder: Path
    python: str

    def models(self) -> set[str]:
        """Names of models that its tests ask for."""
        found: set[str] = {MODEL}
        for file in (self.folder / "tests" / "api_resources").rglob("test_*.py"):
            found |= set(re.findall(r'(?:model|model_id)="([^"]+)"', file.read_text(encoding="utf-8")))
        for file in (self.folder / "src" / self.vendor).glob("_data/*.py"):
            found |= set(re.findall(r'"(claude-[\w.@-]+)"', file.read_text(encoding="utf-8")))
        return found

    def run(self, url: str, report: Path, *, only: str | None = None) -> dict[str, bool]:
        """Whether each test passed, by its id.

        Args:
            url: The server.
            report: Where the tests' report is written to.
            only: As pytest's ``-k``.
        """
        paths = [f"tests/api_resources/{path}" for path in PATHS[self.vendor]]
        alias = ["-p", "tests._alias_httpx"] if (self.folder / "tests" / "_alias_httpx.py").exists() else []
        command = [
            self.python, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *alias, "--tb=no",
            "--show-capture=no", f"--junitxml={report}", *(["-k", only] if only else []), *paths,
        ]  # fmt: skip
        environment = {**os.environ, "TEST_API_BASE_URL": url + BASES[self.vendor], "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the tests of {self.vendor} cannot run: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return dict(_results(report))

    def excepted(self) -> list[tuple[re.Pattern[str], str]]:
        """What is known not to pass, and why."""
        listed = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))[self.vendor]
        return [(re.compile(one["match"]), one["reason"]) for one in listed]


def _results(report: Path) -> Iterator[tuple[str, bool]]:
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            file, _, cls = case.attrib["classname"].rpartition(".")
            failed = case.find("failure") is not None or case.find("error") is not None
            yield f"{file.replace('.', '/')}.py::{cls}::{case.attrib['name']}", not failed


class Prepared:
    """An ASGI application before another: it puts stored things back before they are asked for."""

    def __init__(self, app: Any, state: Path, response: dict[str, Any], events: list[dict[str, Any]]) -> None:
        self.app = app
        self.store = Store(state / "openai.sqlite3")
        self.responses = [
            StoredResponse(body={**response, "id": name}, input=[], events=events) for name in RESPONSES
        ]  # fmt: skip
        self.file = StoredFile(id=FILE, created=0.0, expires=None, name="x.txt", purpose="user_data", size=1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for stored in self.responses:
            if f"/responses/{stored.id}" in scope.get("path", ""):
                self.store.put_response(b"", stored)
        if f"/files/{FILE}" in scope.get("path", ""):
            self.store.delete_file(b"", FILE)
            self.store.put_file(b"", self.file, b"x")
        await self.app(scope, receive, send)


async def dummy(scope: Any, receive: Any, send: Any) -> None:
    """A server that answers everything with an empty object: what it passes proves nothing of ours."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def compare(results: dict[str, bool], excepted: Iterable[tuple[re.Pattern[str], str]]) -> tuple[list[str], list[str]]:
    """Failures without a reason, and reasons without a failure."""
    listed = list(excepted)
    failed = [test for test, passed in results.items() if not passed]
    unexplained = [test for test in failed if not any(pattern.search(test) for pattern, _ in listed)]
    idle = [pattern.pattern for pattern, _ in listed if not any(pattern.search(test) for test in failed)]
    return unexplained, idle
