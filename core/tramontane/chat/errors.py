# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a chat template, as part of the one error tree."""

from __future__ import annotations

from tramontane.errors import ConfigError, RequestError


class TemplateError(ConfigError):
    """A chat template cannot be used: it is missing, is not valid Jinja, or is too large."""

    code = "invalid_chat_template"


class TemplateRefusedError(RequestError):
    """The template itself refused the conversation (``raise_exception``); the message is the template's."""

    code = "template_refused"


class TemplateFailedError(RequestError):
    """The template failed on this conversation, or did something that templates may not do."""

    code = "template_failed"


class TemplateLimitError(RequestError):
    """Rendering took too long or produced too much."""

    code = "template_limit"
