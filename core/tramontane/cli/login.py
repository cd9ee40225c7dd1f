# SPDX-License-Identifier: Apache-2.0
"""``tramontane login``: keep a hub token where every program with the hub's client finds it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tramontane.cli.options import shared
from tramontane.cli.output import say
from tramontane.cli.state import verbosity_options
from tramontane.errors import AuthenticationError, OfflineError


@click.command()
@shared("--token-source", metavar="SOURCE", help="Take the token from env:NAME, path:FILE or literal:TOKEN.")
@click.option("--forget", is_flag=True, help="Remove the stored token instead.")
@click.option("--no-check", is_flag=True, help="Store it without asking the hub whose it is.")
@verbosity_options
def command(token_source: str | None, forget: bool, no_check: bool) -> None:
    """Log in to the model hub.

    The token is read without echo, or from standard input where that is a pipe. It is checked, then kept in the file
    that the hub's client uses (HF_TOKEN_PATH), readable by you alone. Make one at https://huggingface.co/settings/tokens.
    """
    if forget:
        _forget()
        return
    token = _asked(token_source)
    name = "unchecked" if no_check else _owner(token)
    path = _store(token)
    say(f"logged in ({name}); the token is in {path}")


def _asked(source: str | None) -> str:
    """The token that is meant.

    Raises:
        AuthenticationError: There is none.
    """
    from tramontane.hub import read_token

    if source is not None and source.partition(":")[0] in ("env", "path", "literal"):
        return str(read_token(source))
    typed = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    if not typed.strip():
        raise AuthenticationError("no token was given", hint="type it, pipe it in, or name it with --token-source")
    return str(read_token(f"literal:{typed}"))


def _owner(token: str) -> str:
    """Whose token it is, by asking the hub.

    Raises:
        AuthenticationError: The hub does not know it.
        OfflineError: The hub cannot be asked.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    from tramontane.hub.faults import is_unreachable

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        return str(HfApi(endpoint=endpoint).whoami(token=token)["name"])
    except HfHubHTTPError as error:
        raise AuthenticationError(
            f"{endpoint} does not accept this token (status {error.response.status_code})",
            hint="copy it whole, from https://huggingface.co/settings/tokens",
        ) from None
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise OfflineError(
            f"{endpoint} cannot be reached to check the token", hint="or store it with --no-check"
        ) from None


def _store(token: str) -> str:
    from huggingface_hub import constants

    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(token, encoding="utf-8")
    return str(path)


def _forget() -> None:
    from huggingface_hub import constants

    path = Path(constants.HF_TOKEN_PATH)
    if not path.exists():
        say("there is no stored token")
        return
    path.unlink()
    say(f"removed the token in {path}")
