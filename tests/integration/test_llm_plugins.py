# SPDX-License-Identifier: Apache-2.0
"""Late plugins given to ``LLM``: a module or a file that knows a model by a name of its own, and watches it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tramontane import LLM, AsyncLLM, SamplingParams, hookimpl
from tramontane.errors import HubError, PluginError
from tramontane.host import Host
from tramontane.plugins import installed

demo = pytest.importorskip("tramontane_loader_demo.plugin", reason="the demo plugin is not installed")

FILE = """
from tramontane import hookimpl

@hookimpl
def tramontane_resolve_model(ref):
    return {folder!r} if ref == "house" else None
"""


@pytest.fixture
def watched() -> list[tuple[str, Any]]:
    return []


@pytest.fixture
def watcher(watched: list[tuple[str, Any]]) -> ModuleType:
    """A plugin that calls the demo ``mansion`` and notes what it is told."""
    module = ModuleType("house_watcher")

    @hookimpl
    def tramontane_resolve_model(ref: str) -> Path | None:
        return demo.FOLDER if ref == "mansion" else None

    @hookimpl
    def tramontane_engine_started(engine: Any) -> None:
        watched.append(("started", engine))

    @hookimpl
    def tramontane_engine_stopped(engine: Any) -> None:
        watched.append(("stopped", engine))

    @hookimpl
    def tramontane_request_finished(request: Any) -> None:
        watched.append(("finished", request))

    for hook in (
        tramontane_resolve_model, tramontane_engine_started, tramontane_engine_stopped, tramontane_request_finished,
    ):  # fmt: skip
        setattr(module, hook.__name__, hook)
    return module


def test_a_module_resolves_and_observes(watcher: ModuleType, watched: list[tuple[str, Any]]) -> None:
    with LLM("mansion", plugins=[watcher], max_model_len=128) as llm:
        out = llm.generate("Once", SamplingParams(max_tokens=3, ignore_eos=True))
        llm.generate("Once", SamplingParams(max_tokens=None, stop=" "), stream=True).close()
    assert [what for what, _ in watched] == ["started", "finished", "finished", "stopped"]
    engine, request = watched[0][1], watched[1][1]
    assert (engine.model, engine.architecture, engine.max_model_len) == ("mansion", "llama", 128)
    assert engine.load_s > 0
    assert (request.model, request.completion_tokens, request.finish_reason) == ("mansion", 3, "length")
    assert request.prompt_tokens == len(out.prompt_token_ids)
    assert watched[2][1].finish_reason == "canceled"


def test_a_file_resolves(tmp_path: Path) -> None:
    path = tmp_path / "house_plugin.py"
    path.write_text(FILE.format(folder=str(demo.FOLDER)))
    with LLM("house", plugins=[path]) as llm:
        assert llm.generate("Once", SamplingParams(max_tokens=2)).usage.completion_tokens == 2
    with pytest.raises(HubError):
        LLM("house", offline=True)


def test_a_late_plugin_that_fails_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken_house.py"
    path.write_text("raise RuntimeError('no roof')")
    with pytest.raises(PluginError, match="no roof"):
        LLM("demo", plugins=[path])


async def test_a_host_with_late_plugins(watcher: ModuleType, watched: list[tuple[str, Any]]) -> None:
    host = Host(installed().extended([watcher]))
    host.add("villa", "mansion", num_blocks=64)
    llm = await host.acquire("villa")
    assert isinstance(llm, AsyncLLM)
    out = await llm.generate("Once", SamplingParams(max_tokens=2))
    assert out.usage.completion_tokens == 2
    host.close()
    assert [(what, fact.model) for what, fact in watched] == [
        ("started", "villa"), ("finished", "villa"), ("stopped", "villa"),
    ]  # fmt: skip
