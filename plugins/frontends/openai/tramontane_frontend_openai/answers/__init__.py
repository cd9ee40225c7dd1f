# SPDX-License-Identifier: Apache-2.0
"""What clients get: answers as objects and as streamed chunks. Field names and shapes are OpenAI's."""

from __future__ import annotations

from tramontane_frontend_openai.answers.chat import ChatShape
from tramontane_frontend_openai.answers.common import Spell, UsageMeanwhile
from tramontane_frontend_openai.answers.text import TextShape

__all__ = ["ChatShape", "Spell", "TextShape", "UsageMeanwhile"]
