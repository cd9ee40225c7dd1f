# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-tools-chat-formats: each format, and by what in a chat template it is recognized."""

from __future__ import annotations

from collections.abc import Iterator

from tramontane import hookimpl
from tramontane.records import ChatFormatSpec

#: name -> (texts that all occur in the template, priority). A format with more specific texts has a higher priority.
_FORMATS: dict[str, tuple[tuple[str, ...], int]] = {
    "harmony": (("<|channel|>", "<|message|>", "<|start|>"), 90),
    "deepseek-v32": (("｜DSML｜",), 80),
    "deepseek-v3": (("<｜tool▁calls▁begin｜>", "```json"), 80),
    "deepseek-v31": (("<｜tool▁calls▁begin｜>",), 70),
    "kimi-k2": (("<|tool_calls_section_begin|>",), 80),
    "minimax-m2": (("<minimax:tool_call>",), 80),
    "minimax-m1": (("<tool_calls>", "<begin_of_document>"), 75),
    "seed": (("<seed:tool_call>",), 80),
    "command-r7b": (("<|START_ACTION|>",), 80),
    "command-r": (("Action:", "```json", "tool_name"), 40),
    "mistral-think": (("[TOOL_CALLS]", "<think>"), 75),
    "mistral-v11": (("[TOOL_CALLS]", "[ARGS]"), 72),
    "mistral": (("[TOOL_CALLS]",), 70),
    "lfm2": (("<|tool_list_start|>",), 70),
    "apertus": (("<|tools_prefix|>",), 70),
    "nemotron": (("<TOOLCALL>",), 70),
    "apriel": (("<tool_calls>", "[BEGIN FINAL RESPONSE]"), 75),
    "hunyuan": (("<tool_calls>",), 60),
    "smollm3": (("xml_tools", "python_tools"), 75),
    "glm45": (("<tool_call>", "<arg_key>"), 70),
    "qwen-coder": (("<tool_call>", "<function="), 70),
    "granite": (("<|tool_call|>", "<|start_of_role|>"), 60),
    "phi4-mini": (("<|tool|>",), 55),
    "hermes": (("<tool_call>",), 50),
    "functionary": (("<function=",), 45),
    "llama4": (("<|header_start|>",), 50),
    "llama3": (("<|start_header_id|>", '"parameters"'), 30),
    "firefunction": (("functools",), 40),
    "glm4": (("<|observation|>",), 30),
    "gemma": (("<start_of_turn>",), 30),
    "thinking": (("<think>",), 20),
}  # fmt: skip


@hookimpl
def tramontane_chat_formats() -> Iterator[ChatFormatSpec]:
    """Every format of this package; ``plain-json`` is recognized by nothing and only chosen by name."""
    for name, (markers, priority) in _FORMATS.items():
        module = "harmony" if name == "harmony" else "formats"
        constant = name.replace("-", "_").upper()
        yield ChatFormatSpec(
            name=name,
            markers=markers,
            priority=priority,
            format=f"tramontane_tools_chat_formats.{module}:{constant}",
        )
    yield ChatFormatSpec(name="plain-json", format="tramontane_tools_chat_formats.formats:PLAIN_JSON")
