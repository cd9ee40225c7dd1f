# SPDX-License-Identifier: Apache-2.0
"""``tramontane serve``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli.common import common_options
from tramontane.cli.fleet import add_models, preloaded
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import HABITS, ModelOptions, model_options, shared
from tramontane.cli.output import say
from tramontane.cli.state import State
from tramontane.errors import ConfigError

if TYPE_CHECKING:
    from tramontane_frontend_http.settings import ServerSettings

KEY_VARIABLE = "TRAMONTANE_API_KEY"
"""One key, or several separated by commas. A flag would show in the list of processes."""
ADMIN_VARIABLE = "TRAMONTANE_ADMIN_KEY"
"""The same for keys that manage models."""


@click.command(epilog=HABITS)
@click.argument("reference", metavar="[MODEL]", required=False)
@shared("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@shared("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free port.")
@shared("--served-name", metavar="NAME", help="What requests call the model; by default its reference.")
@shared("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="API keys, one per line.")
@shared("--admin-key-file", type=click.Path(path_type=Path), metavar="FILE", help="Keys that alone manage models.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without a key.")
@shared("--allow-host", multiple=True, metavar="NAME", help="A name in the Host header to serve.")
@shared("--cors-origin", multiple=True, metavar="ORIGIN", help="A web page that may call; * for all.")
@shared("--max-body", type=click.IntRange(1), default=50 * 2**20, show_default=True, help="Bytes of a request's body.")
@shared("--max-concurrent", type=click.IntRange(1), default=512, show_default=True, help="Requests open at a time.")
@shared("--max-queue", type=click.IntRange(1), metavar="N", help="Requests that wait for their turn at a time.")
@shared("--rate-limit", type=click.IntRange(1), metavar="N", help="Requests per minute and key.")
@shared(
    "--request-timeout", type=click.FloatRange(0.001), default=600.0, show_default=True, help="Until an answer begins."
)
@shared(
    "--header-timeout",
    type=click.FloatRange(0.001),
    default=15.0,
    show_default=True,
    help="Until a request's head is there.",
)
@shared("--body-timeout", type=click.FloatRange(0.001), default=30.0, show_default=True,
        help="Between two pieces of a body.")  # fmt: skip
@shared("--adapter-dir", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
        help="Adapters in it may be loaded over HTTP.")  # fmt: skip
@click.option("--separate-keys", is_flag=True, help="Keep what each API key stored and cached from the others.")
@shared("--drain-seconds", type=click.FloatRange(0), default=30.0, show_default=True, help="To end open answers.")
@shared("--tls-certificate", type=click.Path(path_type=Path), metavar="FILE", help="Serve HTTPS with this certificate.")
@shared("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's key.")
@shared("--state-dir", metavar="DIR", help="Where stored responses and files are kept; none keeps them in memory.")
@click.option("--access-log/--no-access-log", default=True, help="One line per request on standard error.")
@click.option("--metrics/--no-metrics", default=True, help="Offer /metrics to Prometheus.")
@click.option("--in-process", is_flag=True, help="Run engines in the server's process; a crash then ends both.")
@common_options(model_options)
def command(state: State, reference: str | None, model_options: ModelOptions, **given: Any) -> None:
    """Serve a model over HTTP.

    MODEL is a folder, a file, a hub id, or demo (the default).
    """
    from tramontane.host import Host
    from tramontane_frontend_http.server import serve

    settings = _settings(given)
    with _accesses_logged() if settings.access_log else nullcontext(), progress_bar(state) as progress:
        apart = not given["in_process"]
        host = Host(state.plugins, progress, state_dir=_state_dir(given["state_dir"]), apart=apart)
        name = add_models(host, state, reference, model_options, name=given["served_name"])
        serve(
            host,
            settings,
            lambda url, app: say(f"Serving {name} at {url} ({', '.join(app.mounted)}). Ctrl-C stops."),
            preloaded(state),
        )


def _settings(given: dict[str, Any]) -> ServerSettings:
    from tramontane_frontend_http.settings import ServerSettings

    return ServerSettings(
        host=given["host"], port=given["port"], insecure=given["insecure"],
        api_keys=_keys(KEY_VARIABLE, given["api_key_file"]), admin_keys=_keys(ADMIN_VARIABLE, given["admin_key_file"]),
        allowed_hosts=tuple(name.lower() for name in given["allow_host"]), cors_origins=tuple(given["cors_origin"]),
        max_body_bytes=given["max_body"], max_concurrent=given["max_concurrent"], max_queue=given["max_queue"],
        request_timeout=given["request_timeout"], header_timeout=given["header_timeout"],
        body_timeout=given["body_timeout"], separate_keys=given["separate_keys"],
        requests_per_minute=given["rate_limit"], drain_seconds=given["drain_seconds"],
        tls_certificate=given["tls_certificate"], tls_key=given["tls_key"], access_log=given["access_log"],
        metrics=given["metrics"], adapter_folders=tuple(given["adapter_dir"]),
    )  # fmt: skip


def _state_dir(given: str | None) -> Path | None:
    """The folder for what outlives the server: the one that is named, or ours in the XDG state directory."""
    if given is not None:
        return None if given == "none" else Path(given)
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = stated if stated.is_absolute() else Path.home() / ".local" / "state"
    return base / "tramontane"


def _keys(variable: str, file: Path | None) -> tuple[str, ...]:
    found = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
    if file is not None:
        try:
            found += [line.strip() for line in file.read_text().splitlines() if line.strip()]
        except OSError as error:
            raise ConfigError(f"cannot read the API keys in {file}: {error.strerror}") from None
        if not found:
            raise ConfigError(f"{file} holds no API key", hint="write one per line")
    return tuple(found)


@contextmanager
def _accesses_logged() -> Iterator[None]:
    """Within the block, the access log goes to standard error as it is: each line is an object already."""
    logger = logging.getLogger("tramontane.access")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)  # the stream may be closed before the next server of this process
        logger.level, logger.propagate = before
