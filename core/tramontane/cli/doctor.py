# SPDX-License-Identifier: Apache-2.0
"""``tramontane doctor``: runs every health check, each in a guard, and prints what they found."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import click

from tramontane.cli.output import paint, print_json
from tramontane.cli.state import State, verbosity_options
from tramontane.plugins import Plugins
from tramontane.records import Health, HealthCheck, HealthStatus

_COLOURS = {HealthStatus.OK: "green", HealthStatus.WARN: "yellow", HealthStatus.FAIL: "red"}


def examine(plugins: Plugins) -> Iterator[Health]:
    """Every line of every check; a check that raises is itself a line."""
    for check in plugins.catalogs.health_checks:
        try:
            yield from _lines(check, plugins)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = f"the check{check.origin} raised {type(error).__name__}: {error}"
            yield Health(title=check.name, status=HealthStatus.FAIL, message=message)


def _lines(check: HealthCheck, plugins: Plugins) -> Iterator[Health]:
    for line in check.load("check")(plugins):
        if not isinstance(line, Health):
            raise TypeError(f"it gave {type(line).__name__}, not Health")
        yield line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@verbosity_options
@click.pass_obj
def command(state: State, as_json: bool) -> int:
    """Check this machine and this installation; exit with 1 if something does not work."""
    found = list(examine(state.plugins))
    if as_json:
        print_json([{**attrs.asdict(line), "status": str(line.status)} for line in found])
    else:
        _print(found)
    return 1 if any(line.status is HealthStatus.FAIL for line in found) else 0


def _print(found: list[Health]) -> None:
    width = max((len(line.title) for line in found), default=0)
    for line in found:
        status = paint(f"{line.status!s:<4}", fg=_COLOURS[line.status], bold=True)
        click.echo(f"{status}  {line.title:<{width}}  {line.message}")
        if line.hint and line.status is not HealthStatus.OK:
            click.echo(f"{'':<{width + 8}}-> {line.hint}")
