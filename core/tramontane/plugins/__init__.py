# SPDX-License-Identifier: Apache-2.0
"""Plugins: discover, check, isolate, register, freeze catalogs.

:func:`installed` gives the process's :class:`Plugins`: everything that is installed, loaded once. What it holds never
changes; :meth:`Plugins.extended` makes a new generation with late plugins. A broken plugin never stops the host and is
never hidden: it is one warning in the log, a row of the report, and a note of every look-up that misses.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tramontane.errors import PluginError
from tramontane.plugins import discovery
from tramontane.plugins.catalogs import KINDS, Catalog, Catalogs, Conflict, Entry
from tramontane.plugins.discovery import Candidate
from tramontane.plugins.events import Decisions, Observers, PlanStep, bind
from tramontane.plugins.loading import LoadedPlugin, adopt, load, new_manager
from tramontane.plugins.report import TROUBLE, PluginReport, Status
from tramontane.plugins.settings import STRICT, PluginId, Settings
from tramontane.records import Record

__all__ = [
    "Candidate",
    "Catalog",
    "Catalogs",
    "Conflict",
    "Decisions",
    "Observers",
    "PlanStep",
    "PluginId",
    "PluginReport",
    "Plugins",
    "Settings",
    "Status",
    "installed",
    "using",
]

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Plugins:
    """One generation of plugins and what they offer."""

    catalogs: Catalogs
    decisions: Decisions
    observers: Observers
    reports: tuple[PluginReport, ...]
    """One row per plugin that was found, in the order of loading."""
    settings: Settings
    loaded: tuple[LoadedPlugin, ...]
    """The plugins in use, each with its records, claimed keys included."""

    @classmethod
    def load(cls, candidates: Iterable[Candidate], settings: Settings | None = None) -> Plugins:
        """Load exactly ``candidates``; look at nothing else on this machine.

        Raises:
            PluginError: In strict mode, naming every plugin that failed.
        """
        return _generation(1, (), (), candidates, settings or Settings.from_environment())

    def extended(self, modules: Iterable[object] = (), files: Iterable[str | Path] = ()) -> Plugins:
        """A new generation with plugins given as modules or as single files. This one stays as it is.

        A late plugin was asked for by name, so its failure is an error here and not a line of a report.

        Raises:
            PluginError: One of them failed.
        """
        candidates = [*map(discovery.from_module, modules), *map(discovery.from_file, files)]
        known = {loaded.id for loaded in self.loaded}
        candidates = [candidate for candidate in candidates if candidate.id not in known]
        if not candidates:
            return self
        later = _generation(self.catalogs.generation + 1, self.loaded, self.reports, candidates, self.settings)
        asked = {candidate.id for candidate in candidates}
        for report in later.reports:
            if report.id in asked and report.status in (Status.FAILED, Status.INCOMPATIBLE):
                raise PluginError(report.line) from report.exception
        return later

    def as_json(self) -> dict[str, object]:
        """This generation as ``tramontane plugins --json`` prints it."""
        conflicts = self.catalogs.conflicts()
        return {
            "generation": self.catalogs.generation,
            "plugins": [report.as_json() for report in self.reports],
            "conflicts": [
                {"kind": one.kind, "key": one.key, "plugins": [owner.label for owner in one.owners]}
                for one in conflicts
            ],
        }


def _generation(
    number: int,
    earlier: tuple[LoadedPlugin, ...],
    reports: tuple[PluginReport, ...],
    candidates: Iterable[Candidate],
    settings: Settings,
) -> Plugins:
    manager = new_manager()
    for loaded in earlier:
        adopt(loaded, manager)
    plugins = list(earlier)
    rows = list(reports)
    for candidate in candidates:
        row, found = load(candidate, manager, settings)
        rows.append(row)
        if row.status in TROUBLE:
            _log.warning("%s", row.line)
        if found is not None:
            plugins.append(found)
    if settings.strict:
        _raise_trouble(rows)
    calls = bind(manager, plugins)
    return Plugins(
        catalogs=_freeze(number, plugins, rows, settings),
        decisions=Decisions(calls),
        observers=Observers(calls),
        reports=tuple(rows),
        settings=settings,
        loaded=tuple(plugins),
    )


def _freeze(
    number: int, plugins: Iterable[LoadedPlugin], reports: Iterable[PluginReport], settings: Settings
) -> Catalogs:
    entries: dict[type[Record], list[Entry[Any]]] = {kind: [] for kind in KINDS.values()}
    for loaded in plugins:
        for record in loaded.records:
            entries[type(record)].append(Entry(record, loaded.id))
    catalogs: dict[str, Any] = {
        name: Catalog.build(kind.kind, entries[kind], reports, settings.prefer) for name, kind in KINDS.items()
    }
    return Catalogs(generation=number, **catalogs)


def _raise_trouble(reports: Iterable[PluginReport]) -> None:
    trouble = [report for report in reports if report.status in TROUBLE]
    if trouble:
        raise PluginError(
            "\n".join(report.line for report in trouble), hint=f"{STRICT} is set, so this is an error"
        ) from trouble[0].exception


_lock = threading.Lock()
_installed: Plugins | None = None


def installed() -> Plugins:
    """The plugins of this process: loaded the first time they are asked for, from the environment as it is then."""
    global _installed
    with _lock:
        if _installed is None:
            _installed = Plugins.load(discovery.installed())
        return _installed


@contextmanager
def using(plugins: Plugins) -> Iterator[Plugins]:
    """Make ``plugins`` what :func:`installed` gives, until the block ends. For tests and embedding programs."""
    global _installed
    with _lock:
        before, _installed = _installed, plugins
    try:
        yield plugins
    finally:
        with _lock:
            _installed = before
