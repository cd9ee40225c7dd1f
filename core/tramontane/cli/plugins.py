# SPDX-License-Identifier: Apache-2.0
"""``tramontane plugins``: every plugin, what became of it, what it brings."""

from __future__ import annotations

import click

from tramontane.cli.output import paint, print_json, print_table
from tramontane.cli.state import State, verbosity_options
from tramontane.plugins import PluginReport, Plugins, Status
from tramontane.plugins.references import broken_references

_COLOURS = {
    Status.OK: "green",
    Status.PARTLY_UNKNOWN: "yellow",
    Status.FAILED: "red",
    Status.INCOMPATIBLE: "red",
    Status.OFF: "bright_black",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--check", is_flag=True, help="Import everything that plugins refer to; exit with 1 if anything is wrong."
)
@verbosity_options
@click.pass_obj
def command(state: State, as_json: bool, check: bool) -> int:
    """List the plugins and what became of each."""
    plugins = state.plugins
    broken = broken_references(plugins) if check else ()
    if as_json:
        print_json(_document(plugins, broken, check))
    else:
        _print(plugins, broken, check)
    wrong = broken or plugins.catalogs.conflicts() or any(_is_wrong(report) for report in plugins.reports)
    return 1 if check and wrong else 0


def _is_wrong(report: PluginReport) -> bool:
    return report.status in (Status.FAILED, Status.INCOMPATIBLE, Status.PARTLY_UNKNOWN)


def _document(plugins: Plugins, broken: tuple[str, ...], check: bool) -> dict[str, object]:
    document = plugins.as_json()
    if check:
        document["broken_references"] = list(broken)
    return document


def _contributions(plugins: Plugins, report: PluginReport) -> str:
    """What a plugin brings, by kind: ``loader: demo; command: run, bench``."""
    kinds: dict[str, list[str]] = {}
    events: list[str] = []
    for loaded in plugins.loaded:
        if loaded.id == report.id:
            events += loaded.events
            for record in loaded.records:
                kinds.setdefault(record.kind, []).append(record.name)
    return "; ".join([*(f"{kind}: {', '.join(names)}" for kind, names in kinds.items()), *events]) or "-"


def _print(plugins: Plugins, broken: tuple[str, ...], check: bool) -> None:
    rows = [
        (
            report.id.name,
            report.id.distribution or "-",
            report.id.version or "-",
            paint(str(report.status), fg=_COLOURS[report.status]),
            f"{report.ms:.1f}",
            _contributions(plugins, report),
        )
        for report in plugins.reports
    ]
    print_table(("plugin", "distribution", "version", "status", "ms", "contributions"), rows, right=("ms",))
    for report in plugins.reports:
        for line in (*((report.error,) if report.error else ()), *report.notes):
            click.echo(f"{report.id.name}: {line}")
    for conflict in plugins.catalogs.conflicts():
        click.echo(str(conflict))
    for line in broken:
        click.echo(line)
    if check and not broken:
        click.echo("every reference resolves")
