# SPDX-License-Identifier: Apache-2.0
"""Which format a real template is taken for; and every real template renders a conversation with a tool or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tramontane.chat import ChatTemplate, TemplateRefusedError
from tramontane.load.text import find_format
from tramontane.plugins import PluginId
from tramontane.plugins.catalogs import Catalog, Entry
from tramontane.records import ChatFormatSpec
from tramontane_tools_chat_formats import plugin

TEMPLATES = Path(__file__).parents[5] / "shared" / "data" / "templates"
SPECS: dict[str, ChatFormatSpec] = {spec.name: spec for spec in plugin.tramontane_chat_formats()}
EXPECTED = {
    "llama.cpp/Qwen-Qwen2.5-7B-Instruct": "hermes",
    "llama.cpp/Qwen-Qwen3-0.6B": "hermes",
    "llama.cpp/Qwen-QwQ-32B": "hermes",
    "llama.cpp/Qwen3-Coder": "qwen-coder",
    "llama.cpp/Qwen3.5-4B": "qwen-coder",
    "llama.cpp/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen-coder",
    "llama.cpp/NVIDIA-Nemotron-Nano-v2": "nemotron",
    "llama.cpp/NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "llama.cpp/meta-llama-Llama-3.1-8B-Instruct": "llama3",
    "llama.cpp/meta-llama-Llama-3.2-3B-Instruct": "llama3",
    "llama.cpp/meta-llama-Llama-3.3-70B-Instruct": "llama3",
    "llama.cpp/mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "llama.cpp/Mistral-Small-3.2-24B-Instruct-2506": "mistral-v11",
    "llama.cpp/mistralai-Ministral-3-14B-Reasoning-2512": "mistral-v11",
    "mistral-common/v3": "mistral",
    "mistral-common/v7": "mistral",
    "mistral-common/v13": "mistral-v11",
    "mistral-common/v11_think": "mistral-think",
    "llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-v3",
    "llama.cpp/llama-cpp-deepseek-r1": "deepseek-v3",
    "llama.cpp/deepseek-ai-DeepSeek-V3.1": "deepseek-v31",
    "llama.cpp/deepseek-ai-DeepSeek-V3.2": "deepseek-v32",
    "llama.cpp/google-gemma-2-2b-it": "gemma",
    "llama.cpp/GLM-4.6": "glm45",
    "llama.cpp/GLM-4.7-Flash": "glm45",
    "llama.cpp/ibm-granite-granite-3.3-2B-Instruct": "granite",
    "llama.cpp/ibm-granite-granite-4.0": "hermes",
    "llama.cpp/CohereForAI-c4ai-command-r-plus-tool_use": "command-r",
    "llama.cpp/CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command-r7b",
    "mistral.rs/smollm3": "smollm3",
    "llama.cpp/LFM2-8B-A1B": "lfm2",
    "llama.cpp/openai-gpt-oss-120b": "harmony",
    "llama.cpp/Kimi-K2-Instruct": "kimi-k2",
    "llama.cpp/Kimi-K2-Thinking": "kimi-k2",
    "llama.cpp/MiniMax-M2": "minimax-m2",
    "llama.cpp/ByteDance-Seed-OSS": "seed",
    "llama.cpp/Apertus-8B-Instruct": "apertus",
    "llama.cpp/meetkai-functionary-medium-v3.1": "functionary",
    "llama.cpp/fireworks-ai-llama-3-firefunction-v2": "firefunction",
    "llama.cpp/Apriel-1.6-15b-Thinker-fixed": "apriel",
    "chujiezheng/zephyr": None,
}
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": '{"t": 20}'},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}},
    },
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def template(name: str) -> str:
    if not TEMPLATES.is_dir():
        pytest.skip(f"needs the shared test data at {TEMPLATES}")
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def catalog() -> Catalog[ChatFormatSpec]:
    owner = PluginId("tools-chat-formats", "tramontane-tools-chat-formats")
    return Catalog.build("chat format", [Entry(spec, owner) for spec in SPECS.values()], (), ())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_template_tells_its_format(name: str) -> None:
    found = find_format(template(name), catalog())
    expected = EXPECTED[name]
    assert found is (SPECS[expected].load("format") if expected is not None else None)


def test_a_format_can_be_named() -> None:
    assert find_format(None, catalog(), "plain-json") is SPECS["plain-json"].load("format")
    assert find_format(None, catalog()) is None


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.full)])
def test_every_template_renders_a_conversation_with_a_tool_or_refuses_it(step: int) -> None:
    """What a template that knows tools renders holds the tool's result and, where it can, the tool and the call."""
    if not TEMPLATES.is_dir():
        pytest.skip(f"needs the shared test data at {TEMPLATES}")
    rendered = refused = 0
    for path in sorted(TEMPLATES.rglob("*.jinja"))[::step]:
        expects = {"functions": "[]", "datetime": "now"} if "firefunction" in path.name else {}
        made = ChatTemplate(path.read_text(encoding="utf-8"), names=NAMES)
        try:
            text = made.render(CONVERSATION, tools=[TOOL], template_kwargs=expects).text
        except TemplateRefusedError:  # with its own message; anything else fails here
            refused += 1
            continue
        rendered += 1
        if made.supports_tools:
            assert "get_weather" in text, path.name
    assert rendered > 80 / step
    assert refused < 25 / step + 2
