# SPDX-License-Identifier: Apache-2.0
"""Fields of requests: read into attrs classes by name. Unknown ones are tolerated, wrong ones are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from tramontane.config import read_config
from tramontane.errors import ConfigError
from tramontane.wire.errors import FieldError

T = TypeVar("T")

MAX_IDENTIFIER = 256
"""Characters of what a client may call its users, sessions and caches."""


def read(cls: type[T], body: Any) -> T:
    """A request from decoded JSON. What ``cls`` does not have is ignored: clients learn new fields before servers.

    Raises:
        FieldError: Names the first wrong field; the message names all.
    """
    if not isinstance(body, Mapping):
        raise FieldError("the body must be a JSON object")
    try:
        return read_config(cls, body, "the request")
    except ConfigError as error:
        lines = [line.strip() for line in error.message.splitlines()[1:]]
        param = lines[0].partition(": ")[0] if lines else None
        raise FieldError("; ".join(lines) or error.message, param=param) from None


def identifier(text: str, param: str) -> str:
    """Check a name that a client made up: it ends up in keys and logs.

    Raises:
        FieldError: It is empty, too long, or holds control characters or separators of paths.
    """
    if not 0 < len(text) <= MAX_IDENTIFIER or any(c in "/\\" or not c.isprintable() for c in text):
        raise FieldError(
            f"{param} must have 1 to {MAX_IDENTIFIER} printable characters, none of them a slash", param=param
        )
    return text
