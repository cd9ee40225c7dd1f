# SPDX-License-Identifier: Apache-2.0
"""Where the hub's access token comes from. Tokens are never printed, logged or put into errors."""

from __future__ import annotations

import os
from pathlib import Path

from tramontane.errors import AuthenticationError, ConfigError

#: How a token source is written, for messages.
FORMS = "cache, none, env:NAME, path:FILE or literal:TOKEN"


def read_token(source: str) -> str | bool | None:
    """The token that a source names.

    Args:
        source: ``cache`` (``HF_TOKEN``, else the token that logging in stored), ``none`` (send no token), ``env:NAME``,
            ``path:FILE`` or ``literal:TOKEN``.

    Returns:
        The token; ``None`` to let the hub client look in its usual places; ``False`` to send none.

    Raises:
        ConfigError: There is no such kind of source.
        AuthenticationError: The variable or file holds no token.
    """
    kind, _, rest = source.partition(":")
    if source == "cache":
        return None
    if source == "none":
        return False
    if kind == "literal":
        return _plain(rest, "the token given on the command line or in the configuration")
    if kind == "env":
        return _plain(os.environ.get(rest, ""), f"the environment variable {rest!r}")
    if kind == "path":
        path = Path(rest).expanduser()
        try:
            return _plain(path.read_text(encoding="utf-8"), f"the file {path}")
        except (OSError, UnicodeDecodeError) as error:
            raise AuthenticationError(f"cannot read a token from {path}: {error}") from error
    raise ConfigError(f"there is no token source of the kind {kind!r}", hint=f"write {FORMS}")


def _plain(text: str, where: str) -> str:
    token = text.strip()
    if not token:
        raise AuthenticationError(f"{where} holds no token", hint=f"token sources are {FORMS}")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise AuthenticationError(f"{where} does not look like a token: it has spaces or unusual characters")
    return token
