# SPDX-License-Identifier: Apache-2.0
"""``tramontane from-config FILE``: run what a file describes.

The file is one of ``--config`` with one key more, ``command`` (``serve`` by default), and usually with ``[[models]]``.
"""

from __future__ import annotations

from pathlib import Path

import click

from tramontane.cli.app import group
from tramontane.cli.config_file import read_toml
from tramontane.cli.state import verbosity_options
from tramontane.errors import ConfigError

DEFAULT_COMMAND = "serve"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE COMMAND]...")
@verbosity_options
@click.pass_context
def command(context: click.Context, file: Path, arguments: tuple[str, ...]) -> object:
    """Run what a TOML file describes: a command, its options, one model or several.

    \b
    command = "serve"
    [serve]
    port = 8000
    [[models]]
    name = "small"
    model = "demo"
    """
    name = read_toml(file).get("command", DEFAULT_COMMAND)
    if not isinstance(name, str):
        raise ConfigError(f"{file}: command must be the name of a command, not {name!r}")
    if name == context.info_name:
        raise ConfigError(f"{file}: command = {name!r} would never end", hint='such as command = "serve"')
    root = context.find_root()
    target = group.get_command(root, name)
    with target.make_context(name, ["--config", str(file), *arguments], parent=root) as made:
        return target.invoke(made)
