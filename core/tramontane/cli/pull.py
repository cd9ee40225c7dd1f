# SPDX-License-Identifier: Apache-2.0
"""``tramontane pull``: fetch a model into the hub's cache; what that takes is said first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli.common import common_options
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import SourceOptions, source_options
from tramontane.cli.output import print_json, say
from tramontane.cli.state import State

if TYPE_CHECKING:
    from tramontane.hub import Listing


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--dry-run", is_flag=True, help="Say what would be downloaded, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, on a terminal either.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options(source_options)
def command(state: State, model: str, dry_run: bool, yes: bool, as_json: bool, source: SourceOptions) -> None:
    """Download a model, so that it starts at once and works offline.

    MODEL is a hub id; --quant picks among the files of a repository. Prints the folder or file the model is in.
    """
    from tramontane.load import LoadOptions, local_files

    announced = _Announcement(state, ask=not yes and not as_json and sys.stdin.isatty(), dry_run=dry_run)
    options = LoadOptions(
        revision=source.revision, quant=source.quant, token_source=source.token_source or "cache",
        offline=source.offline or None, allow_pickle=source.allow_pickle,
    )  # fmt: skip
    try:
        with progress_bar(state) as progress:
            path: Path | None = local_files(model, options, state.plugins, progress, announced)
    except _Enough:
        path = None
    if as_json:
        print_json({"model": model, "path": None if path is None else str(path), **announced.facts()})
    elif path is not None:
        click.echo(str(path))


class _Enough(Exception):
    """A dry run ends here."""


class _Announcement:
    """Says what a download takes before it begins, and asks where a person can answer."""

    def __init__(self, state: State, *, ask: bool, dry_run: bool) -> None:
        self._quiet = state.verbosity < 0
        self._ask = ask
        self._dry_run = dry_run
        self._listing: Listing | None = None

    def __call__(self, listing: Listing) -> None:
        self._listing = listing
        if not self._quiet:
            say(describe(listing))
        if self._dry_run:
            raise _Enough
        if self._ask and listing.missing and listing.nbytes_missing <= listing.free:
            click.confirm("Download?", default=True, abort=True, err=True)

    def facts(self) -> dict[str, Any]:
        """For ``--json``; empty where the hub was not asked."""
        listing = self._listing
        if listing is None:
            return {}
        return {
            "commit": listing.commit, "files": dict(listing.files), "bytes": listing.nbytes,
            "bytes_to_download": listing.nbytes_missing, "bytes_free": listing.free,
        }  # fmt: skip


def describe(listing: Listing) -> str:
    """What a download takes, in one line."""
    from tramontane.memory import format_bytes

    begin = f"{listing.repository} at {listing.commit[:8]}: {len(listing.files)} files, {format_bytes(listing.nbytes)}"
    if not listing.missing:
        return f"{begin}; all of it is in the cache"
    here = listing.nbytes - listing.nbytes_missing
    cached = f" ({format_bytes(here)} of it in the cache)" if here else ""
    return (
        f"{begin}{cached}; {format_bytes(listing.nbytes_missing)} to download, "
        f"{format_bytes(listing.free)} free in {listing.root}"
    )
