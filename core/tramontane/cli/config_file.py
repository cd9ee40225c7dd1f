# SPDX-License-Identifier: Apache-2.0
"""``--config FILE``: a TOML file whose values become the defaults of a command's options.

Its keys are the long options' names. Those at the top are for every command, so they must be shared options; those in a
table named like a command (``[bench]``) are for that command alone, and win. ``[[models]]`` lists several models
(:mod:`tramontane.cli.fleet`); ``command`` is what ``tramontane from-config`` runs.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from tramontane.cli.fleet import read_models
from tramontane.cli.options import ENVIRONMENT, GenerationOptions, ModelOptions
from tramontane.cli.state import State
from tramontane.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_SHARED = frozenset(field.name for group in (ModelOptions, GenerationOptions) for field in attrs.fields(group))

_RESERVED = frozenset({"command", "models"})
CONFIG_FILE = "tramontane.config_file"
"""Where a context's ``meta`` notes the file that values came from."""


def config_option(function: F) -> F:
    """Add ``--config FILE`` to a command. It must be the outermost decorator of options."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=f"{ENVIRONMENT}CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_apply,
        metavar="FILE",
        help="TOML file with values for options.",
    )(function)


def _apply(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    content = read_toml(path)
    context.meta[CONFIG_FILE] = str(path)
    command = context.info_name or ""
    own = content.get(command, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"{path}: {command!r} is a command, so it must be a table: [{command}]")
    if "models" in content:
        context.ensure_object(State).models = read_models(path, content["models"])
    tables = {command, *_siblings(context), *_RESERVED}
    common = {key: value for key, value in content.items() if key not in tables}
    options = {option.name: option for option in context.command.params if option.name and option.name != "config"}
    values = {**_checked(path, common, _SHARED), **_checked(path, own, frozenset(options))}
    defaults = {name: _shaped(options[name], value) for name, value in values.items() if name in options}
    context.default_map = {**(context.default_map or {}), **defaults}


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        ConfigError: It cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        hint = "check the path that --config, TRAMONTANE_CONFIG or from-config was given"
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}", hint=hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'mend that place; a line is key = value, and text stands in quotes: quant = "q4k"'
        raise ConfigError(f"{path} is not valid TOML: {error}", hint=hint) from None


def _siblings(context: click.Context) -> list[str]:
    parent = context.parent
    if parent is None or not isinstance(parent.command, click.Group):
        return []
    return parent.command.list_commands(parent)


def _checked(path: Path, values: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The values by option name.

    Raises:
        ConfigError: Keys that no option has; all are named, with what they may have meant.
    """
    named = {key.replace("-", "_"): value for key, value in values.items()}
    wrong = [name for name in named if name not in known]
    if wrong:
        near = {name: difflib.get_close_matches(name, known, n=1) for name in wrong}
        notes = [f"{name} (did you mean {near[name][0]}?)" if near[name] else name for name in wrong]
        raise ConfigError(f"{path}: unknown keys: {', '.join(notes)}", hint="keys are the long names of options")
    return named


def _shaped(option: click.Parameter, value: Any) -> Any:
    """Let a lone value, or a table of names and values, stand for the list that a repeatable option takes."""
    if not getattr(option, "multiple", False):
        return value
    if isinstance(value, Mapping):
        return list(value.items())
    return value if isinstance(value, list) else [value]
