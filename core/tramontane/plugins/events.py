# SPDX-License-Identifier: Apache-2.0
"""Calls of decision hooks and observers, bound once per generation.

A decision's error is the asker's error and names the plugin: to go on without a decision could mean another model. An
observer's error is logged and counted, never raised. Neither is called inside a step.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import define, field, frozen

from tramontane.errors import PluginError, TramontaneError
from tramontane.hooks import PROJECT
from tramontane.plugins.loading import LoadedPlugin
from tramontane.plugins.settings import BLOCK, PluginId
from tramontane.records import EngineInfo, RequestSummary

if TYPE_CHECKING:
    from tramontane.build import ModelPlan

_log = logging.getLogger(__name__)

Call = tuple[PluginId, Callable[..., list[Any] | Any]]


def bind(manager: pluggy.PluginManager, plugins: Iterable[LoadedPlugin]) -> Mapping[str, tuple[Call, ...]]:
    """For each decision hook and observer, one caller per plugin that implements it, in the plugins' order."""
    plugins = tuple(plugins)
    everyone = [loaded.plugin for loaded in plugins]
    bound: dict[str, list[Call]] = {}
    for loaded in plugins:
        others = [plugin for plugin in everyone if plugin is not loaded.plugin]
        for event in loaded.events:
            caller = manager.subset_hook_caller(f"{PROJECT}_{event}", remove_plugins=others)
            bound.setdefault(event, []).append((loaded.id, caller))
    return {event: tuple(calls) for event, calls in bound.items()}


@frozen
class PlanStep:
    """One plugin's turn at a plan."""

    plugin: PluginId
    before: ModelPlan
    after: ModelPlan

    @property
    def changed(self) -> bool:
        """Whether it returned another plan."""
        return self.after is not self.before


@frozen
class Decisions:
    """Asks plugins while a model is loaded."""

    _calls: Mapping[str, tuple[Call, ...]]

    def resolve_model(self, ref: str, options: Mapping[str, object]) -> str | os.PathLike[str] | None:
        """The local path that the first plugin with an opinion gives for ``ref``; None where none has one.

        Raises:
            PluginError: A plugin failed, or returned something that is no path.
        """
        for plugin, call in self._calls.get("resolve_model", ()):
            found = _ask(plugin, "resolve_model", call, ref=ref, options=options)
            if found is None:
                continue
            if not isinstance(found, str | os.PathLike):
                raise _broken(plugin, "resolve_model", f"returned {type(found).__name__}, not a path")
            return found
        return None

    def transform_plan(self, plan: ModelPlan) -> tuple[ModelPlan, tuple[PlanStep, ...]]:
        """Let each plugin in turn return the plan to use; also who did what, for ``--explain-plan``.

        Raises:
            PluginError: A plugin failed, or did not return a plan.
        """
        steps: list[PlanStep] = []
        for plugin, call in self._calls.get("transform_plan", ()):
            answers = _ask(plugin, "transform_plan", call, plan=plan)
            after = answers[0] if answers else None
            if not isinstance(after, type(plan)):
                raise _broken(plugin, "transform_plan", f"returned {type(after).__name__}, not the plan to use")
            steps.append(PlanStep(plugin, plan, after))
            plan = after
        return plan, tuple(steps)


def _ask(plugin: PluginId, hook: str, call: Callable[..., Any], **arguments: object) -> Any:
    try:
        return call(**arguments)
    except (KeyboardInterrupt, TramontaneError):
        raise  # a plugin's own error for people says more than a wrapped one
    except BaseException as error:
        raise _broken(plugin, hook, f"raised {type(error).__name__}: {error}") from error


def _broken(plugin: PluginId, hook: str, what: str) -> PluginError:
    return PluginError(
        f"plugin {plugin.label}: its hook {PROJECT}_{hook} {what}",
        hint=f"{BLOCK}={plugin.distribution or plugin.name} leaves it out",
    )


@define
class Observers:
    """Tells plugins what happened."""

    _calls: Mapping[str, tuple[Call, ...]]
    errors: Counter[str] = field(factory=Counter, init=False)
    """How often each plugin's observers have failed, by ``label: hook``."""

    def engine_started(self, engine: EngineInfo) -> None:
        """An engine is ready."""
        self._tell("engine_started", engine=engine)

    def engine_stopped(self, engine: EngineInfo) -> None:
        """An engine has shut down."""
        self._tell("engine_stopped", engine=engine)

    def request_finished(self, request: RequestSummary) -> None:
        """A request has ended."""
        self._tell("request_finished", request=request)

    def metrics(self, model: str, metrics: Mapping[str, float]) -> None:
        """A reading of counters and gauges."""
        self._tell("metrics", model=model, metrics=metrics)

    def _tell(self, event: str, **facts: object) -> None:
        for plugin, call in self._calls.get(event, ()):
            try:
                call(**facts)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                where = f"{plugin.label}: {PROJECT}_{event}"
                self.errors[where] += 1
                if self.errors[where] == 1:  # once with everything, then only counted: it may be one per request
                    _log.warning("observer of plugin %s raised %s: %s", where, type(error).__name__, error)
                    _log.debug("traceback", exc_info=error)
