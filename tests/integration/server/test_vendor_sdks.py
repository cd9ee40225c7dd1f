# SPDX-License-Identifier: Apache-2.0
"""The tests of the vendors' own SDKs, pointed at the server; what does not pass is listed with its reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import listening, make_host, python_of
from vendor_sdks import Prepared, Sdk, compare, dummy

from tramontane_frontend_http import make_app

QUICK = {"openai": "strict and TestResponses and not all_params", "anthropic": "strict and TestMessages"}
"""The part that the default tests run."""


def sdk(vendor: str) -> Sdk:
    python = python_of("main")
    found = sorted((Path(python).parents[2] / "sdists").glob(f"{vendor}-*/"))
    if not found:
        pytest.skip(f"no source of {vendor}'s SDK: python scripts/client_environment.py fetches it")
    return Sdk(vendor, found[-1], python)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sdks = [sdk(vendor) for vendor in QUICK]
    folder = tmp_path_factory.mktemp("sdk")
    host = make_host(folder)
    for name in set().union(*(one.models() for one in sdks)):
        host.alias(name, "talker")
    app = make_app(host)
    with listening(app) as plain:
        body = {"model": "talker", "input": "Hi", "background": True}
        made = httpx.post(f"{plain}/v1/responses", json=body, timeout=120).json()
        until = time.monotonic() + 120
        while made["status"] in ("queued", "in_progress") and time.monotonic() < until:
            time.sleep(0.1)
            made = httpx.get(f"{plain}/v1/responses/{made['id']}").json()
    prepared = Prepared(app, folder / "state", made, [{"type": "response.created", "sequence_number": 0}])
    with listening(prepared) as url:
        yield url
    host.close()


@pytest.mark.parametrize("vendor", QUICK)
def test_the_quick_part_passes(vendor: str, url: str, tmp_path: Path) -> None:
    tested = sdk(vendor)
    results = tested.run(url, tmp_path / "report.xml", only=QUICK[vendor])
    unexplained, _ = compare(results, tested.excepted())
    assert len(results) > 10
    assert not unexplained


@pytest.mark.full
@pytest.mark.parametrize("vendor", QUICK)
def test_everything_passes_but_what_is_listed(vendor: str, url: str, tmp_path: Path) -> None:
    tested = sdk(vendor)
    results = tested.run(url, tmp_path / "report.xml")
    with listening(dummy) as empty:
        idle_server = tested.run(empty, tmp_path / "dummy.xml")
    print(f"{vendor}: {sum(results.values())} of {len(results)}; a dummy {sum(idle_server.values())}")
    assert compare(results, tested.excepted()) == ([], [])
    assert sum(results.values()) > sum(idle_server.values())
