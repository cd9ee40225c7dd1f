# SPDX-License-Identifier: Apache-2.0
"""How commands load a model: its settings from the options, a progress bar on a terminal, and the demo by default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from tramontane.cli.options import ModelOptions
from tramontane.cli.output import colour, say
from tramontane.cli.state import State

if TYPE_CHECKING:
    from tramontane.progress import Progress, ProgressEvent

F = TypeVar("F", bound=Callable[..., Any])

DEMO = "demo"
"""The reference of the embedded model."""


def named_model(argument: str | None, options: ModelOptions) -> str | None:
    """The model that a command was given: its argument or ``--model``.

    Raises:
        click.UsageError: Both were given, and differ.
    """
    if argument is not None and options.model is not None and argument != options.model and _by_flag():
        raise click.UsageError(f"two models were named: {argument} and, with --model, {options.model}")
    return argument or options.model


def announce_demo(state: State, reference: str) -> None:
    """Say that the embedded model answers, where it does."""
    if reference == DEMO and state.verbosity >= 0:
        said = "This is the embedded demo model, a tiny teller of stories."
        say(f"{said} Name another with -m MODEL.")


def _by_flag() -> bool:
    context = click.get_current_context()
    return context.get_parameter_source("model") is click.core.ParameterSource.COMMANDLINE


def model_settings(options: ModelOptions) -> dict[str, Any]:
    """The options as keyword arguments of ``LLM``; those that were not given are left out."""
    given = attrs.asdict(options, filter=lambda field, value: field.name not in ("model", "adapter"))
    given["offline"] = options.offline or None
    given["expert_parallel"] = options.expert_parallel or None
    given["adapters"] = dict(options.adapter) or None
    return {name: value for name, value in given.items() if value is not None}


_OF_ONE_MODEL = (
    *("adapters", "revision", "arch", "tokenizer", "chat_template", "chat_format", "topology", "imatrix", "calibrate"),
    *("device_map", "max_model_len"),
)


def machine_settings(options: ModelOptions) -> dict[str, Any]:
    """Those of :func:`model_settings` that suit any model: they speak of the machine and not of one model's files."""
    return {name: value for name, value in model_settings(options).items() if name not in _OF_ONE_MODEL}


STOPPED = "stopped while loading; files that were downloaded whole are kept, so the same command goes on from there"

NO_ADAPTER = "none"
"""What ``--use-adapter`` says for the model as it is; no adapter is called so."""


def chosen_adapter(options: ModelOptions, wanted: str | None) -> str | None:
    """The adapter of a command that answers by itself: the named one, else the first that was given.

    Raises:
        click.UsageError: None of that name was given.
    """
    names = [name for name, _ in options.adapter]
    if wanted is None:
        return names[0] if names else None
    if wanted == NO_ADAPTER:
        return None
    if wanted not in names:
        given = f"given: {', '.join(names)}" if names else "give it with --adapter NAME=PATH"
        raise click.UsageError(f"--use-adapter {wanted}: there is no adapter of that name; {given}")
    return wanted


def adapter_option(function: F) -> F:
    """Add ``--use-adapter NAME``."""
    text = "Answer with this one of the adapters (the first if not given); none for the model as it is."
    return click.option("--use-adapter", metavar="NAME", help=text)(function)


@contextmanager
def progress_bar(state: State) -> Iterator[Progress]:
    """What shows how loading goes: a bar on standard error where that is a terminal, nothing elsewhere and with -q.

    A Ctrl-C meanwhile goes on with a note for the person.
    """
    try:
        with _bar(state) as progress:
            yield progress
    except KeyboardInterrupt as stop:
        stop.add_note(STOPPED)
        raise


@contextmanager
def _bar(state: State) -> Iterator[Progress]:
    if state.verbosity < 0 or not sys.stderr.isatty():
        from tramontane.progress import silent

        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color=not colour(sys.stderr))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)
    tasks: dict[str, Any] = {}

    def show(event: ProgressEvent) -> None:
        if event.phase not in tasks:
            tasks[event.phase] = bar.add_task(event.phase, total=None)
        bar.update(tasks[event.phase], completed=event.done, total=event.total or None)
        if event.total and event.done >= event.total:
            # Gone as soon as it is full: a server goes on within this block, and says things.
            bar.stop()
            bar.remove_task(tasks.pop(event.phase))
        else:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
