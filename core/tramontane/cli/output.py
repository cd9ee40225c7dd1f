# SPDX-License-Identifier: Apache-2.0
"""How commands print: tables, JSON, errors.

Results go to stdout, everything else to stderr. A terminal gets tables and colour, unless ``NO_COLOR`` is set; a pipe
gets plain text. rich is imported only for a table on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from tramontane.errors import TramontaneError


def colour(stream: TextIO) -> bool:
    """Whether to colour what goes to ``stream``: a terminal, and no ``NO_COLOR`` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, stream: TextIO | None = None, **style: Any) -> str:
    """``text`` in a colour or weight of ``click.style``, where ``stream`` (stdout) is coloured."""
    return click.style(text, **style) if colour(stream or sys.stdout) else text


def say(text: str = "") -> None:
    """Print a line for the person on stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_error(error: TramontaneError) -> None:
    """Print an error of the tree: what happened, and what to do."""
    say(f"{paint('error:', sys.stderr, fg='red', bold=True)} {error.message}")
    if error.hint:
        say(f"  {paint('->', sys.stderr, bold=True)} {error.hint}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under headings on stdout; ``right`` names the columns to align at the right (figures)."""
    if sys.stdout.isatty():
        _rich_table(columns, rows, right)
    else:
        _plain_table(columns, rows, right)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    Console(no_color=not colour(sys.stdout)).print(table)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        click.echo("  ".join(cells).rstrip())
