# SPDX-License-Identifier: Apache-2.0
"""``tramontane config``: the options of a command, their values, and where each came from."""

from __future__ import annotations

import copy
import os
from typing import Any

import click
from click.core import ParameterSource

from tramontane.cli.app import group
from tramontane.cli.config_file import CONFIG_FILE
from tramontane.cli.output import print_json, print_table
from tramontane.cli.state import State, verbosity_options

_SECRET = "literal:"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--show", is_flag=True, help="Print the table; what happens without it too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--of", "name", default="run", show_default=True, metavar="COMMAND", help="The command to look at.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE COMMAND]...")
@verbosity_options
@click.pass_context
def command(context: click.Context, show: bool, as_json: bool, name: str, arguments: tuple[str, ...]) -> None:
    """Show the value of every option of a command, and where it came from.

    A flag wins over the variable TRAMONTANE_<OPTION>, that over the file of --config, that over the default. Options
    that follow are read as the command would read them: tramontane config --show --config my.toml --quant q4k
    """
    rows = values(context, name, list(arguments))
    if as_json:
        print_json({option: {"value": value, "from": source} for option, value, source in rows})
    else:
        print_table(("option", "value", "from"), [(option, _shown(value), source) for option, value, source in rows])


def values(context: click.Context, name: str, arguments: list[str]) -> list[tuple[str, Any, str]]:
    """(option, value, source) of each option of a command.

    Raises:
        click.UsageError: There is no such command, or it does not take the arguments.
        ConfigError: The file is wrong.
    """
    root = context.find_root()
    found = group.get_command(root, name)
    target = copy.copy(found)
    target.params = [_optional(parameter) for parameter in found.params]
    with target.make_context(name, arguments, parent=root) as made:
        made.ensure_object(State)
        return [
            (_spelled(option), _plain(made.params[option.name]), _source(made, option))
            for option in target.params
            if isinstance(option, click.Option) and option.name in made.params
        ]


def _optional(parameter: click.Parameter) -> click.Parameter:
    """Looking at options needs none of them."""
    if not parameter.required:
        return parameter
    copied = copy.copy(parameter)
    copied.required = False
    return copied


def _source(context: click.Context, option: click.Option) -> str:
    found = context.get_parameter_source(option.name or "")
    if found is ParameterSource.COMMANDLINE:
        return "flag"
    if found is ParameterSource.ENVIRONMENT:
        names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
        return f"environment: {next((one for one in names if os.environ.get(one)), names[0])}"
    if found is ParameterSource.DEFAULT_MAP:
        return f"file: {context.meta.get(CONFIG_FILE, '--config')}"
    return "default"


def _spelled(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_SECRET):
        return f"{_SECRET}***"
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join("=".join(item) if isinstance(item, list) else str(item) for item in value) or "-"
    return str(value)
