# SPDX-License-Identifier: Apache-2.0
"""``tramontane cache``: what the hub's cache holds, and removing from it."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli.output import print_json, print_table, say
from tramontane.cli.state import verbosity_options
from tramontane.errors import ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo


@click.group()
@verbosity_options
def command() -> None:
    """Look into the cache of downloaded models, or remove from it.

    It is the cache that every program with the hub's client shares; HF_HOME says where it is.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@verbosity_options
def list_models(as_json: bool) -> None:
    """List the models in the cache, the largest first."""
    from tramontane.memory import format_bytes

    found = sorted(_models(_scan()), key=lambda repo: -repo.size_on_disk)
    if as_json:
        print_json([_facts(repo) for repo in found])
        return
    if not found:
        say(f"the cache in {_folder()} holds no models")
        return
    rows = [
        (repo.repo_id, format_bytes(repo.size_on_disk), str(repo.nb_files), ", ".join(sorted(repo.refs)) or "-",
         _ago(repo.last_accessed))
        for repo in found
    ]  # fmt: skip
    print_table(("model", "size", "files", "revisions", "last used"), rows, right=("size", "files"))
    say(f"{len(found)} models, {format_bytes(sum(repo.size_on_disk for repo in found))} in {_folder()}")


@command.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--revision", metavar="REV", help="Only this branch, tag or commit.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@verbosity_options
def delete(models: tuple[str, ...], revision: str | None, yes: bool) -> None:
    """Remove models from the cache.

    Files that another revision of the same model needs stay.
    """
    from tramontane.memory import format_bytes

    cache = _scan()
    known = {repo.repo_id: repo for repo in _models(cache)}
    commits = [commit for name in models for commit in _commits(known, name, revision)]
    if cache is None or not commits:
        return
    strategy = cache.delete_revisions(*commits)
    if not yes:
        what = f"{', '.join(models)}{f' at {revision}' if revision else ''}"
        click.confirm(f"Remove {what} ({format_bytes(strategy.expected_freed_size)})?", abort=True, err=True)
    strategy.execute()
    say(f"{format_bytes(strategy.expected_freed_size)} freed")


def _commits(known: dict[str, CachedRepoInfo], name: str, revision: str | None) -> list[str]:
    """The commits to remove.

    Raises:
        ModelNotFoundError: The cache has no such model or revision.
    """
    repo = known.get(name)
    if repo is None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "see what there is with: tramontane cache list"
        raise ModelNotFoundError(f"the cache in {_folder()} has no model {name!r}", hint=hint)
    found = [
        item.commit_hash
        for item in repo.revisions
        if revision is None or revision in item.refs or item.commit_hash.startswith(revision)
    ]
    if not found:
        have = sorted({ref for item in repo.revisions for ref in item.refs or {item.commit_hash[:8]}})
        raise ModelNotFoundError(f"the cache has no revision {revision!r} of {name}", hint=f"it has {', '.join(have)}")
    return found


def _scan() -> HFCacheInfo | None:
    """What the cache holds; ``None`` where there is none yet."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return scan_cache_dir(_folder())
    except CacheNotFound:
        return None


def _models(cache: HFCacheInfo | None) -> list[CachedRepoInfo]:
    return [repo for repo in cache.repos if repo.repo_type == "model"] if cache is not None else []


def _folder() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _facts(repo: CachedRepoInfo) -> dict[str, Any]:
    return {
        "model": repo.repo_id, "bytes": repo.size_on_disk, "files": repo.nb_files, "path": str(repo.repo_path),
        "revisions": {item.commit_hash: sorted(item.refs) for item in repo.revisions},
        "last_used": repo.last_accessed,
    }  # fmt: skip


_STEPS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def _ago(moment: float) -> str:
    """``3 days ago``."""
    seconds = max(0.0, time.time() - moment)
    for step, word in _STEPS:
        if seconds >= step:
            count = int(seconds // step)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "just now"
