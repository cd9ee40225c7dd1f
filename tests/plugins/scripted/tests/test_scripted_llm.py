# SPDX-License-Identifier: Apache-2.0
"""What frontends rely on: a scripted conversation through the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tramontane_scripted.plugin
from tramontane_scripted.checkpoint import Script, write_scripted

from tramontane import LLM, SamplingParams
from tramontane_loader_demo.plugin import FOLDER as TOKENIZER

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
SUNNY = "It is sunny in Rome, so take a hat. Ça ira! ☀"
GREEDY = SamplingParams(max_tokens=200, temperature=0)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder: Path = write_scripted(tmp_path_factory.mktemp("llm"), TOKENIZER, Script(replies=[CALL, SUNNY]))
    with LLM(folder, plugins=[tramontane_scripted.plugin]) as made:
        yield made


def test_a_conversation_with_a_tool(llm: LLM) -> None:
    messages = [{"role": "user", "content": "How is the weather in Rome?"}]
    first = llm.chat(messages, GREEDY)
    assert (first.text, first.finish_reason) == (CALL, "stop")
    messages += [{"role": "assistant", "content": first.text}, {"role": "tool", "content": "sunny"}]
    second = llm.chat(messages, GREEDY)
    assert (second.text, second.finish_reason) == (SUNNY, "stop")
    assert second.usage.completion_tokens == len(second.token_ids)


def test_a_stream_spells_the_same(llm: LLM) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hm"},
        {"role": "user", "content": "So?"},
    ]
    pieces = [delta.text for delta in llm.chat(messages, GREEDY, stream=True)]
    assert "".join(pieces) == SUNNY
    assert len(pieces) > 5


def test_stop_strings_and_limits_cut_the_script(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    stopped = llm.chat(messages, SamplingParams(max_tokens=200, temperature=0, stop=", "))
    assert (stopped.text, stopped.finish_reason) == (CALL.partition(", ")[0], "stop")
    cut = llm.chat(messages, SamplingParams(max_tokens=5, temperature=0))
    assert (len(cut.token_ids), cut.finish_reason) == (5, "length")
    assert CALL.startswith(cut.text)
