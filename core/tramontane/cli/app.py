# SPDX-License-Identifier: Apache-2.0
"""The group ``tramontane``: finds sub-commands in the catalog, imports the one that is run, and turns what it raises
into an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import tramontane
from tramontane.cli.output import print_error, say
from tramontane.cli.state import TRACEBACKS, State, log_to_stderr, verbosity_options
from tramontane.errors import PluginError, TramontaneError, UnknownNameError

EXIT_ERROR = 1
EXIT_CTRL_C = 130
COMPLETING = "_TRAMONTANE_COMPLETE"
"""Set by a shell that wants to know how a line can go on."""


class CatalogGroup(click.Group):
    """A group whose commands are the catalog's. ``--help`` prints the records' help lines and imports no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command that is not hidden."""
        commands = ctx.ensure_object(State).plugins.catalogs.commands
        return sorted(spec.name for spec in commands if not spec.hidden)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import one command.

        Raises:
            ConflictError: Two plugins claim the name.
            PluginError: Its module fails, or what it names is no command.
            click.UsageError: Nobody has the name.
        """
        commands = ctx.ensure_object(State).plugins.catalogs.commands
        try:
            spec = commands.get(cmd_name)
        except UnknownNameError as error:
            raise click.UsageError(str(error), ctx) from error
        command = spec.load("command")
        if not isinstance(command, click.Command):
            raise PluginError(f"command {cmd_name!r}{spec.origin}: {spec.command!r} is no click.Command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section ``Commands`` from the records."""
        commands = ctx.ensure_object(State).plugins.catalogs.commands
        rows = [(name, commands.get(name).help) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _remember_files(context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> None:
    context.ensure_object(State).plugin_files = value


@click.group(cls=CatalogGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(tramontane.__version__, "-V", "--version", prog_name="tramontane")
@click.option(
    "--plugin",
    "files",
    multiple=True,
    metavar="FILE.py",
    type=click.Path(),
    expose_value=False,
    is_eager=True,
    callback=_remember_files,
    help="Load a plugin that is one Python file (may be repeated).",
)
@verbosity_options
def group() -> None:
    """Run language models on this machine.

    With no model named, the embedded demo model answers: tramontane run -p "Once upon a time"
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if COMPLETING in os.environ:
        import tramontane.cli.completions  # noqa: F401  # registers the shells that click does not know
    with log_to_stderr():
        return _run(arguments, State())


def _run(arguments: Sequence[str] | None, state: State) -> int:
    try:
        result: Any = group.main(
            args=None if arguments is None else list(arguments),
            prog_name="tramontane",
            standalone_mode=False,
            obj=state,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        stop = error.__cause__ or error  # click wraps what it catches
        for note in getattr(stop, "__notes__", ()) if state.verbosity >= 0 else ():
            say(note)
        return EXIT_ERROR if isinstance(stop, EOFError) else EXIT_CTRL_C
    except TramontaneError as error:
        print_error(error)
        _trace(state)
        return EXIT_ERROR
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return EXIT_ERROR
        print_error(_unexpected(error, state))
        _trace(state)
        return EXIT_ERROR
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception, state: State) -> TramontaneError:
    hint = "this is a bug; please report it with the traceback"
    if state.verbosity < TRACEBACKS:
        hint += ", which -vv prints"
    return TramontaneError(f"{type(error).__name__}: {error}", hint=hint)


def _trace(state: State) -> None:
    if state.verbosity >= TRACEBACKS:
        import traceback

        say("".join(traceback.format_exception(*sys.exc_info())).rstrip())
