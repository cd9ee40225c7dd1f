# SPDX-License-Identifier: Apache-2.0
"""Loads one plugin after another, each inside a guard that nothing but Ctrl-C passes.

A plugin is checked before it is imported, imported through a stevedore manager that knows this one entry, registered
with pluggy (which validates its hooks), asked for its records, and undone whole if any of that fails. The guard catches
``BaseException``: a plugin that calls ``sys.exit`` or fails an assertion at import is a line of the report like any
other. Nothing here knows what the records mean.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint
from itertools import islice
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, NoReturn

import attrs
import pluggy
from stevedore.named import NamedExtensionManager

from tramontane import hooks
from tramontane.errors import PluginError
from tramontane.plugins.catalogs import KINDS
from tramontane.plugins.checks import accepted, accepts, incompatibility
from tramontane.plugins.discovery import GROUP, Candidate
from tramontane.plugins.report import PluginReport, Status, describe
from tramontane.plugins.settings import PluginId, Settings
from tramontane.records import Record

_PREFIX = f"{hooks.PROJECT}_"
_MOST_RECORDS = 10_000


class _IncompatibleError(PluginError):
    """Not wrong, but written for another core."""


class _OneEntry(NamedExtensionManager[Any]):
    """A stevedore manager over one entry: it neither scans nor caches, and its errors are the caller's."""

    def __init__(self, entry: EntryPoint) -> None:
        self._entry = entry
        super().__init__(GROUP, [entry.name], on_load_failure_callback=_raise, on_missing_entrypoints_callback=None)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._entry]


def _raise(_manager: object, _entry: EntryPoint, error: BaseException) -> NoReturn:
    raise error


@attrs.frozen
class LoadedPlugin:
    """A plugin that is in use: the object with the hooks, and what it contributed."""

    id: PluginId
    plugin: Any = attrs.field(eq=False, repr=False)
    records: tuple[Record, ...]
    events: tuple[str, ...]
    """Names, without prefix, of the decision hooks and observers it implements."""


def new_manager() -> pluggy.PluginManager:
    """A pluggy manager that knows Tramontane's hooks and no plugin."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def load(
    candidate: Candidate, manager: pluggy.PluginManager, settings: Settings
) -> tuple[PluginReport, LoadedPlugin | None]:
    """Load one plugin into ``manager``; whatever goes wrong is in the report, and then ``manager`` is as before."""
    reason = None if candidate.is_core else settings.why_off(candidate.id)
    if reason is not None:
        return PluginReport(id=candidate.id, status=Status.OFF, error=reason), None
    started = perf_counter()

    def report(status: Status, **facts: Any) -> PluginReport:
        return PluginReport(id=candidate.id, status=status, ms=(perf_counter() - started) * 1e3, **facts)

    try:
        reason = incompatibility(candidate)
        if reason is not None:
            return report(Status.INCOMPATIBLE, error=reason), None
        plugin = _import(candidate)
        loaded, unknown = _register(candidate.id, plugin, manager)
        notes = tuple(_unmarked(plugin))
    except KeyboardInterrupt:
        _undo(candidate, manager)
        raise
    except _IncompatibleError as error:
        _undo(candidate, manager)
        return report(Status.INCOMPATIBLE, error=error.message, exception=error), None
    except BaseException as error:
        _undo(candidate, manager)
        return report(Status.FAILED, error=describe(error), exception=error), None
    contributions = tuple(f"{record.kind} {record.name}" for record in loaded.records) + loaded.events
    if unknown:
        error_line = f"this core does not know its hook{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        return report(Status.PARTLY_UNKNOWN, error=error_line, contributions=contributions, notes=notes), loaded
    return report(Status.OK, contributions=contributions, notes=notes), loaded


def adopt(loaded: LoadedPlugin, manager: pluggy.PluginManager) -> None:
    """Register with a new manager a plugin that an earlier generation has loaded; it is not asked again."""
    manager.register(loaded.plugin, name=loaded.id.label)


# --- importing --------------------------------------------------------------------------------------------------------


def _import(candidate: Candidate) -> Any:
    if candidate.trouble is not None:
        raise PluginError(candidate.trouble)
    if candidate.entry is not None:
        return _OneEntry(candidate.entry).extensions[0].plugin
    return _import_file(candidate.path) if candidate.path is not None else candidate.module


def _import_file(path: Path) -> ModuleType:
    """Import a file as a top-level module named by its stem, so that its lazy strings can name it."""
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier():
        raise PluginError(f"a plugin file is named like a Python module: {path} is not")
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise PluginError(f"a module {name!r} exists already; give the plugin file another name")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _undo(candidate: Candidate, manager: pluggy.PluginManager) -> None:
    name = candidate.id.label
    if manager.has_plugin(name):
        manager.unregister(name=name)
    if candidate.path is not None:
        module = sys.modules.get(candidate.path.stem)
        if module is not None and getattr(module, "__file__", None) == str(candidate.path):
            del sys.modules[candidate.path.stem]


# --- registering ------------------------------------------------------------------------------------------------------


def _register(plugin_id: PluginId, plugin: Any, manager: pluggy.PluginManager) -> tuple[LoadedPlugin, list[str]]:
    """Register, ask every registration hook, check the answers. Returns also the hooks this core does not know."""
    manager.register(plugin, name=plugin_id.label)
    callers = manager.get_hookcallers(plugin) or []
    unknown = sorted(caller.name for caller in callers if not caller.has_spec() and not _optional(caller, plugin))
    records: list[Record] = []
    events: list[str] = []
    others = [other for other in manager.get_plugins() if other is not plugin]
    for caller in sorted(callers, key=lambda c: c.name):
        short = caller.name.removeprefix(_PREFIX)
        if short in KINDS:
            answers = manager.subset_hook_caller(caller.name, remove_plugins=others)()
            records += [_checked(record, KINDS[short], plugin_id) for record in _flatten(caller.name, answers)]
        elif caller.has_spec():
            events.append(short)
    _refuse_repeats(records)
    return LoadedPlugin(plugin_id, plugin, tuple(records), tuple(events)), unknown


def _optional(caller: pluggy.HookCaller, plugin: Any) -> bool:
    return any(impl.optionalhook for impl in caller.get_hookimpls() if impl.plugin is plugin)


def _flatten(hook: str, answers: Iterable[object]) -> Iterator[object]:
    """The records in what a hook returned: one, several, or those of a generator, which runs here, in the guard."""
    for answer in answers:
        if isinstance(answer, Record):
            yield answer
            continue
        if isinstance(answer, str | bytes | dict) or not isinstance(answer, Iterable):
            raise PluginError(f"{hook} returned {type(answer).__name__}; it must return records")
        drained = list(islice(answer, _MOST_RECORDS + 1))
        if len(drained) > _MOST_RECORDS:
            raise PluginError(f"{hook} returned more than {_MOST_RECORDS} records; does its generator end?")
        yield from drained


def _checked(record: object, wanted: type[Record], plugin_id: PluginId) -> Record:
    if not isinstance(record, wanted):
        raise PluginError(f"a {wanted.kind} must be a {wanted.__name__}, got {type(record).__name__}")
    if not isinstance(record.api, int) or not accepts(record.api, wanted.API):
        raise _IncompatibleError(
            f"{record.kind} {record.name!r} is written for version {record.api!r} of {wanted.__name__}, "
            f"this core accepts {accepted(wanted.API)}"
        )
    return attrs.evolve(record, plugin=plugin_id.label)


def _refuse_repeats(records: Iterable[Record]) -> None:
    seen: set[tuple[str, str]] = set()
    for record in records:
        for key in record.keys:
            if (record.kind, key) in seen:
                raise PluginError(f"it gives two {record.kind}s for {key!r}")
            seen.add((record.kind, key))


def _unmarked(plugin: Any) -> Iterator[str]:
    """Functions that look like hooks but lack the marker: pluggy passes over them in silence."""
    for name in dir(plugin):
        if name.startswith(_PREFIX):
            value = inspect.getattr_static(plugin, name)
            if inspect.isfunction(value) and not hasattr(value, f"{hooks.PROJECT}_impl"):
                yield f"{name} has no @hookimpl, so it is never called"
