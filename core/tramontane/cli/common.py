# SPDX-License-Identifier: Apache-2.0
"""The decorator of every command that works on a model: what all of them take, around the groups that each names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from tramontane.cli.config_file import config_option
from tramontane.cli.options import log_option, with_options
from tramontane.cli.state import verbosity_options

F = TypeVar("F", bound=Callable[..., Any])


def common_options(*groups: Callable[[F], F]) -> Callable[[F], F]:
    """Add ``--config``, groups of options, ``--log-file``, ``-v`` and ``-q``; the command gets its ``State`` first.

    Args:
        groups: Such as :data:`tramontane.cli.options.model_options`, in the order of the help.
    """

    def decorate(function: F) -> F:
        told = cast("F", click.pass_obj(function))
        return with_options(told, (config_option, *groups, log_option, verbosity_options))

    return decorate
