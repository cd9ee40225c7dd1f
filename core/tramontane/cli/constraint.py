# SPDX-License-Identifier: Apache-2.0
"""The options that keep an answer to a form: ``--json-schema``, ``--regex``, ``--grammar``, ``--choice``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from tramontane.cli.options import with_options
from tramontane.errors import ConfigError
from tramontane.grammar import Constraint

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--json-schema", metavar="FILE|JSON", help="Answer with JSON that is valid under this schema."),
    click.option("--regex", metavar="PATTERN", help="Answer with text that this regular expression matches."),
    click.option("--grammar", metavar="FILE", help="Answer with text of this grammar (Lark, or llguidance's JSON)."),
    click.option("--choice", multiple=True, metavar="TEXT", help="Answer with one of these texts; repeat for each."),
)


def constraint_options(function: F) -> F:
    """Add the options; the command gets ``constraint: Constraint | None``."""

    @functools.wraps(function)
    def gathered(
        *args: Any,
        json_schema: str | None,
        regex: str | None,
        grammar: str | None,
        choice: tuple[str, ...],
        **values: Any,
    ) -> Any:
        return function(*args, constraint=_constraint(json_schema, regex, grammar, choice), **values)

    return cast("F", with_options(gathered, _OPTIONS))


def _constraint(
    json_schema: str | None, regex: str | None, grammar: str | None, choice: tuple[str, ...]
) -> Constraint | None:
    given = [value for value in (json_schema, regex, grammar, choice or None) if value is not None]
    if len(given) > 1:
        raise click.UsageError("give one of --json-schema, --regex, --grammar and --choice")
    if json_schema is not None:
        inline = json_schema.lstrip().startswith("{")
        return Constraint.json_schema(json_schema if inline else _read(json_schema, "schema"))
    if regex is not None:
        return Constraint.regex(regex)
    if grammar is not None:
        text = _read(grammar, "grammar")
        return Constraint.llguidance(text) if text.lstrip().startswith("{") else Constraint.lark(text)
    return Constraint.choice(choice) if choice else None


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} {path} is not UTF-8 text") from None
