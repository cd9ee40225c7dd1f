# SPDX-License-Identifier: Apache-2.0
"""The ``tramontane`` command. It owns no sub-command: those come from the ``commands`` hook.

A command module has a ``command``: a ``click.Command`` whose callback takes the :class:`tramontane.cli.state.State` by
``@click.pass_obj``. It is imported when it is run, not for ``--help``. It raises errors of the tree
(:mod:`tramontane.errors`), which are printed as a message and a hint; it ends with another exit code by returning it.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 well, 1 an error, 2 wrong usage, 130 Ctrl-C."""
    from tramontane.cli.app import run

    raise SystemExit(run(arguments))
