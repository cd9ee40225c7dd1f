# SPDX-License-Identifier: Apache-2.0
"""Scripts for frontends: a model that thinks, calls a tool, and answers once it has the result."""

from __future__ import annotations

from pathlib import Path

from tramontane_scripted.checkpoint import Script, write_scripted

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>'
THOUGHT = "They ask about Rome."
SUNNY = "It is sunny in Rome, so take a hat. Ça ira! ☀"
TEMPLATE = (
    "{{ bos_token }}{% if tools %}Tools: {{ tools | tojson }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|im_start|>{% else %}{{ message.role }}: {% endif %}"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def write_talking(folder: Path, tokenizer: Path, *, thinks: bool = True) -> Path:
    """A checkpoint whose first answer is a thought and a call, and every later one a sentence. Its format is hermes."""
    first = f"<think>{THOUGHT}</think>{CALL}" if thinks else CALL
    return write_scripted(folder, tokenizer, Script(replies=[first, SUNNY]), chat_template=TEMPLATE)
