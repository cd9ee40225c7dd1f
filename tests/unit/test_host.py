# SPDX-License-Identifier: Apache-2.0
"""The host: names and aliases, loading once and on demand, unloading, metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tramontane import SamplingParams, hookimpl
from tramontane.api.service import Service
from tramontane.errors import ConfigError, EngineClosedError, HubError, ModelNotFoundError, UnknownNameError
from tramontane.host import Host, ModelState
from tramontane.plugins import Plugins, Settings
from tramontane.plugins.discovery import from_module
from tramontane.progress import ProgressEvent
from tramontane.testing.answering import answering_service

ALL = SamplingParams(max_tokens=None)


class _Watcher:
    """A plugin that counts what it is told."""

    __name__ = "watcher"

    def __init__(self) -> None:
        self.metrics: list[tuple[str, Mapping[str, float]]] = []

    @hookimpl
    def tramontane_metrics(self, model: str, metrics: Mapping[str, float]) -> None:
        self.metrics.append((model, metrics))


@pytest.fixture
def watcher() -> _Watcher:
    return _Watcher()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Loading makes an answering model, and is slow; what was loaded is noted."""
    found: list[str] = []

    def load(
        reference: str, settings: Mapping[str, Any], plugins: Plugins, progress: object, name: str | None = None
    ) -> Service:
        found.append(reference)
        time.sleep(0.05)
        if reference == "missing":
            raise ModelNotFoundError("no such model")
        return answering_service(lambda prompt: f"{name}:{prompt}", observers=plugins.observers, name=name or reference)

    monkeypatch.setattr(Service, "load", load)
    return found


@pytest.fixture
def host(loads: list[str], watcher: _Watcher) -> Iterator[Host]:
    host = Host(Plugins.load([from_module(watcher)], Settings()))
    host.add("small", "/models/small")
    host.add("large")
    yield host
    host.close()


async def test_models_are_loaded_when_they_are_wanted(host: Host, loads: list[str]) -> None:
    assert [(card.name, card.reference, card.state) for card in host.models()] == [
        ("small", "/models/small", ModelState.CONFIGURED),
        ("large", "large", ModelState.CONFIGURED),
    ]
    llm = await host.acquire("large")
    assert loads == ["large"]
    assert await host.acquire("large") is llm
    assert (await llm.generate("x", ALL)).text == "large:x"
    small, large = host.models()
    assert (small.state, large.state) == (ModelState.CONFIGURED, ModelState.READY)
    assert (large.max_model_len, large.chats) == (1024, True)


async def test_those_who_wait_share_one_load(host: Host, loads: list[str]) -> None:
    llms = await asyncio.gather(*(host.acquire(name) for name in ("small", "default", None, "small")))
    assert loads == ["/models/small"]
    assert len(set(map(id, llms))) == 1


def test_callers_without_a_loop(host: Host, loads: list[str], tmp_path: Path) -> None:
    told: list[ProgressEvent] = []
    assert host.blocking("large", told.append).generate("x", ALL).text == "large:x"
    assert host.blocking().name == "small"
    assert loads == ["large", "/models/small"]
    (tmp_path / "config.json").write_text("{}")
    assert host.fetch(tmp_path) == tmp_path
    with pytest.raises(HubError):
        host.fetch(tmp_path / "nowhere", told.append, offline=True)
    assert len(loads) == 2


async def test_aliases(host: Host) -> None:
    host.alias("gpt", "large")
    assert (await host.acquire("gpt")).name == "large"
    assert host.models()[1].aliases == ("gpt",)
    host.alias("gpt", "small")
    assert (await host.acquire("gpt")).name == "small"
    with pytest.raises(ConfigError, match="name of a model"):
        host.alias("large", "small")
    with pytest.raises(ConfigError, match="is taken"):
        host.add("gpt")
    with pytest.raises(UnknownNameError, match="no model 'smal'") as caught:
        await host.acquire("smal")
    assert caught.value.hint == "did you mean small?"
    with pytest.raises(UnknownNameError):
        host.alias("x", "nobody")


async def test_unloading_frees_and_loading_again_works(host: Host, loads: list[str]) -> None:
    llm = await host.acquire("small")
    await host.unload("small")
    with pytest.raises(EngineClosedError):
        await llm.generate("x")
    assert host.models()[0].state is ModelState.CONFIGURED
    assert (await (await host.acquire("small")).generate("x", ALL)).text == "small:x"
    assert loads == ["/models/small"] * 2
    await host.unload("large")


async def test_a_model_that_cannot_be_loaded_says_so_and_may_be_tried_again(host: Host, loads: list[str]) -> None:
    with pytest.raises(ModelNotFoundError):
        await host.load("missing")
    card = host.models()[-1]
    assert (card.state, card.error) == (ModelState.FAILED, "no such model")
    with pytest.raises(ModelNotFoundError):
        await host.acquire("missing")
    assert loads == ["missing", "missing"]
    assert (await host.load("other", "small")).name == "other"


async def test_metrics_reach_observers_now_and_then(host: Host, watcher: _Watcher) -> None:
    assert host.metrics() == {}
    llm = await host.acquire()
    await llm.generate("x", ALL)
    readings = host.metrics()
    assert readings["small"]["requests"] == 1.0
    host.metrics()
    assert [(name, reading["requests"]) for name, reading in watcher.metrics] == [("small", 1.0)]


def test_a_host_without_models(loads: list[str]) -> None:
    host = Host(Plugins.load([], Settings()))
    with pytest.raises(UnknownNameError, match="has no model"):
        asyncio.run(host.acquire())
    assert host.tools() == ()
    host.close()


def test_a_closed_host_loads_nothing(host: Host) -> None:
    threads = threading.active_count()
    host.close()
    with pytest.raises(EngineClosedError):
        asyncio.run(host.acquire("small"))
    assert threading.active_count() <= threads + 1
