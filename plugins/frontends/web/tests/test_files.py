# SPDX-License-Identifier: Apache-2.0
"""How the page is served: its policy, its types, caching, and that nothing but its files is there."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tramontane.host import Host
from tramontane_frontend_web.app import POLICY, make_app
from tramontane_frontend_web.files import FOLDER, files, paths


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(make_app(Host()), base_url="http://127.0.0.1")


def test_every_file_is_served_with_the_policy(client: TestClient) -> None:
    assert "/" in paths()
    for path in paths():
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == files()[path].content
        assert client.head(path).headers["content-length"] == str(len(answer.content))
        assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/js/main.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/vendor/purify.es.mjs").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path",
    [
        "/index.html", "/nothing", "/js", "/js/", "/js/../../app.py", "/../app.py", "/%2e%2e/app.py",
        "/vendor/README.md", "/js/main.js/", "//", "/js\\main.js", "/js/main.js%00",
    ],
)  # fmt: skip
def test_nothing_else_is_there(client: TestClient, path: str) -> None:
    answer = client.get(f"http://127.0.0.1{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_it_is_only_read(client: TestClient) -> None:
    assert client.post("/").status_code == 405
    assert client.post("/").headers["allow"] == "GET, HEAD"


def test_it_works_below_another_path() -> None:
    below = TestClient(Starlette(routes=[Mount("/llm", make_app(Host()))]))
    assert "<title>Tramontane" in below.get("/llm/").text
    assert below.get("/llm/js/main.js").status_code == 200


def test_the_page_names_nothing_outside_and_nothing_inline() -> None:
    """What the policy would refuse is not in our own files either; vendored ones only name addresses in comments."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", page)
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page)) <= {p.lstrip("/") for p in paths()} | {"docs"}
    for file in [*FOLDER.glob("css/*.css"), *FOLDER.glob("js/*.js")]:
        text = file.read_text(encoding="utf-8")
        assert text.startswith(("// SPDX-License-Identifier: Apache-2.0", "/* SPDX-License-Identifier: Apache-2.0 */"))
        found = [url for url in re.findall(r"https?://[\w.]+", text) if url != "http://www.w3.org"]
        assert found == [], file.name
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write)\b", text), file.name


def test_each_vendored_file_has_its_licence_and_version() -> None:
    notes = (FOLDER / "vendor" / "README.md").read_text(encoding="utf-8")
    for file, licence in (("marked.esm.js", "marked.LICENSE"), ("purify.es.mjs", "dompurify.LICENSE")):
        begin = (FOLDER / "vendor" / file).read_text(encoding="utf-8")[:300]
        version = re.search(r"v?(\d+\.\d+\.\d+)", begin)
        assert version is not None
        assert version[1] in notes
        assert (FOLDER / "vendor" / licence).stat().st_size > 1000
