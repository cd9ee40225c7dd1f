# SPDX-License-Identifier: Apache-2.0
"""Chat templates: from a conversation to the text of a prompt, safely. See :class:`ChatTemplate`."""

from __future__ import annotations

from tramontane.chat.errors import TemplateError, TemplateFailedError, TemplateLimitError, TemplateRefusedError
from tramontane.chat.meter import RenderLimits
from tramontane.chat.sources import TemplateSource, find_template
from tramontane.chat.template import ChatTemplate, Rendered

__all__ = [
    "ChatTemplate",
    "RenderLimits",
    "Rendered",
    "TemplateError",
    "TemplateFailedError",
    "TemplateLimitError",
    "TemplateRefusedError",
    "TemplateSource",
    "find_template",
]
