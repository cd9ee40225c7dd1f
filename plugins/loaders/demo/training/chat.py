# SPDX-License-Identifier: Apache-2.0
"""Conversations as the text that the model reads: the package's own chat template, rendered as every frontend does."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jinja2

from training.talkgrammar.generate import Conversation

TEMPLATE = Path(__file__).parents[1] / "tramontane_loader_demo" / "model" / "chat_template.jinja"


@cache
def template() -> jinja2.Template:
    """The chat template, compiled with the settings of transformers."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE.read_text())


def render(conversation: Conversation) -> str:
    """The whole conversation, from <s> on."""
    return template().render(
        messages=conversation.messages, tools=conversation.tools, bos_token="<s>", add_generation_prompt=False
    )
