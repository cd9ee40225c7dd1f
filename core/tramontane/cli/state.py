# SPDX-License-Identifier: Apache-2.0
"""What one run of the command line knows: the plugins, and how much to say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import define, field

if TYPE_CHECKING:
    from tramontane.cli.fleet import NamedModel
    from tramontane.plugins import Plugins

F = TypeVar("F", bound=Callable[..., Any])

TRACEBACKS = 2
"""The verbosity (``-vv``) from which errors come with a traceback."""


@define
class State:
    """Shared by the group and its sub-commands; ``@click.pass_obj`` gives it."""

    plugin_files: tuple[str, ...] = ()
    verbosity: int = 0
    """0 says warnings, 1 and 2 say more (``-v``, ``-vv``), below 0 (``-q``) only errors."""
    models: tuple[NamedModel, ...] = ()
    """Those that the file of ``--config`` lists."""
    _plugins: Plugins | None = field(default=None, init=False)

    @property
    def plugins(self) -> Plugins:
        """Everything installed plus the files of ``--plugin``, loaded the first time it is asked for."""
        if self._plugins is None:
            from tramontane.plugins import installed

            self._plugins = installed().extended(files=self.plugin_files)
        return self._plugins

    def set_verbosity(self, verbosity: int) -> None:
        """Take over a new verbosity, for the log too."""
        self.verbosity = verbosity
        levels = {0: logging.WARNING, 1: logging.INFO}
        logging.getLogger("tramontane").setLevel(
            logging.ERROR if verbosity < 0 else levels.get(verbosity, logging.DEBUG)
        )


def _count(context: click.Context, _parameter: click.Parameter, value: int) -> None:
    if value:
        state = context.ensure_object(State)
        state.set_verbosity(max(state.verbosity, 0) + value)


def _quiet(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).set_verbosity(-1)


def verbosity_options(command: F) -> F:
    """Give a command ``-v`` (more is said; twice: tracebacks too) and ``-q`` (only errors are said)."""
    more = click.option(
        "-v", "--verbose", count=True, expose_value=False, is_eager=True, callback=_count, help="Say more; -vv for all."
    )
    less = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, is_eager=True, callback=_quiet, help="Say only errors."
    )
    return more(less(command))


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within the block, send the package's log to stderr, one short line each; other packages' logs are left alone."""
    log = logging.getLogger("tramontane")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
