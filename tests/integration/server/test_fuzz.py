# SPDX-License-Identifier: Apache-2.0
"""schemathesis over our own OpenAPI document, with requests that break it: none may make the server fail.

The long form runs for five minutes (``TRAMONTANE_FUZZ_SECONDS``), the default one for a few seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="a development dependency")
from schemathesis.core.control import SkipTest  # noqa: E402

LIMIT = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "n": 1, "best_of": 1, "background": False}
"""What makes requests cheap: the fuzzer is after the reading of requests, not after long answers."""


def operations(url: str, *paths: str) -> Iterator[object]:
    """Those of the document, or of some of its paths."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema.config.generation.update(modes=[schemathesis.GenerationMode.NEGATIVE])
    for result in schema.get_all_operations():
        if not paths or result.ok().path in paths:
            yield result.ok()


def fuzz(url: str, *paths: str, seconds: float, examples: int) -> int:
    """How many requests were answered; none of them with a 5xx. Every operation is tried at least once."""
    found, count = list(operations(url, *paths)), 0
    until, again = time.monotonic() + seconds, True
    while again:
        again = seconds > 0
        for operation in found:

            @settings(
                max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))  # type: ignore[attr-defined]
            def run(case: object) -> None:
                nonlocal count
                body = getattr(case, "body", None)
                if isinstance(body, dict):
                    body.update({name: value for name, value in LIMIT.items() if isinstance(body.get(name), int)})
                answer = case.call(base_url=url, timeout=60)  # type: ignore[attr-defined]
                count += 1
                assert answer.status_code < 500, (answer.status_code, answer.text[:500])

            with suppress(SkipTest):  # without parameters and a body nothing can be wrong
                run()
            if seconds > 0 and time.monotonic() > until:
                return count
    return count


@pytest.fixture
def unharmed(server: str) -> Iterator[str]:
    """The server with a model that answers; afterwards it still does, and with the same words."""
    before = answer_of(server)  # nothing else may have loaded a model yet
    yield server
    assert answer_of(server) == before
    health = httpx.get(f"{server}/health")
    assert health.status_code == 200, health.text
    assert health.json()["models"]["storyteller"] == "ready"


def answer_of(url: str) -> str:
    """What the demo model says."""
    body = {"model": "storyteller", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_wrong_requests_make_nothing_fail(unharmed: str) -> None:
    assert fuzz(unharmed, "/v1/completions", "/v1/messages", "/v1/responses", seconds=0, examples=3) >= 3


@pytest.mark.full
def test_wrong_requests_make_nothing_fail_for_long(unharmed: str) -> None:
    count = fuzz(unharmed, seconds=float(os.environ.get("TRAMONTANE_FUZZ_SECONDS", "300")), examples=20)
    print(f"{count} requests")
