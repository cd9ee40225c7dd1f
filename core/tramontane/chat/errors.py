# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a chat template, as part of the one error tree."""

from __future__ import annotations

from tramontane.errors import ConfigError, RequestError


class TemplateError(ConfigError):
    """A chat template cannot be used: it is missing, is not valid Jinja, or is too large.

    Name another template with ``--chat-template``; ``tramontane inspect`` lists those of the model.
    """

    code = "invalid_chat_template"


class TemplateRefusedError(RequestError):
    """The template itself refused the conversation (``raise_exception``); the message is the template's.

    Send the messages as the model wants them (roles that alternate, say), or use another template.
    """

    code = "template_refused"


class TemplateFailedError(RequestError):
    """The template failed on this conversation, or did something that templates may not do.

    Check the shape of the messages and tools; if they are right, report it with the model's name.
    """

    code = "template_failed"


class TemplateLimitError(RequestError):
    """Rendering took too long or produced too much.

    Send a shorter conversation; a template that never ends is not one to trust.
    """

    code = "template_limit"
