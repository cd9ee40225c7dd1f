# SPDX-License-Identifier: Apache-2.0
"""Decision hooks and observers: their order, and what becomes of their errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest

from tramontane import hookimpl
from tramontane.errors import GatedModelError, PluginError
from tramontane.records import EngineInfo, RequestSummary
from tramontane.requests import FinishReason
from tramontane.testing.sealed import sealed

ENGINE = EngineInfo(model="m", architecture="foo", backend="torch", device="cpu", dtype="float32")
REQUEST = RequestSummary(
    model="m", request_id="1", finish_reason=FinishReason.STOP, prompt_tokens=3, completion_tokens=2
)


def plugin(name: str, **functions: Callable[..., Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update({f"tramontane_{hook}": hookimpl(function) for hook, function in functions.items()})
    return module


def fail(error: BaseException) -> Any:
    raise error


def test_the_first_plugin_with_an_opinion_resolves_a_model() -> None:
    decisions = sealed(
        plugin("a", resolve_model=lambda ref: None),
        plugin("b", resolve_model=lambda ref, options: f"/b/{ref}/{options['revision']}"),
        plugin("c", resolve_model=lambda ref: fail(AssertionError("c was asked"))),
    ).decisions
    assert decisions.resolve_model("demo", {"revision": "main"}) == "/b/demo/main"
    assert sealed().decisions.resolve_model("demo", {}) is None


def test_a_broken_decision_names_its_plugin() -> None:
    with pytest.raises(PluginError) as caught:
        sealed(plugin("bad", resolve_model=lambda ref: fail(ValueError("no")))).decisions.resolve_model("x", {})
    assert caught.value.message == "plugin bad: its hook tramontane_resolve_model raised ValueError: no"
    assert caught.value.hint == "TRAMONTANE_PLUGINS_OFF=bad leaves it out"
    with pytest.raises(PluginError, match="returned int, not a path"):
        sealed(plugin("bad", resolve_model=lambda: 3)).decisions.resolve_model("x", {})
    with pytest.raises(PluginError, match="raised SystemExit"):
        sealed(plugin("bad", resolve_model=lambda: fail(SystemExit(1)))).decisions.resolve_model("x", {})


def test_a_plugins_own_error_for_people_passes_unchanged() -> None:
    with pytest.raises(GatedModelError, match="ask first"):
        sealed(plugin("p", resolve_model=lambda: fail(GatedModelError("ask first")))).decisions.resolve_model("x", {})


def test_plans_pass_from_plugin_to_plugin_and_the_steps_are_kept() -> None:
    plan: Any = ("plan",)
    decisions = sealed(
        plugin("a", transform_plan=lambda plan: (*plan, "a")),
        plugin("b", transform_plan=lambda plan: plan),
        plugin("c", transform_plan=lambda plan: (*plan, "c")),
    ).decisions
    after, steps = decisions.transform_plan(plan)
    assert after == ("plan", "a", "c")
    assert [(step.plugin.name, step.changed) for step in steps] == [("a", True), ("b", False), ("c", True)]
    assert steps[2].before == ("plan", "a")


def test_a_plugin_that_forgets_to_return_the_plan() -> None:
    plan: Any = ("plan",)
    with pytest.raises(PluginError, match="transform_plan returned NoneType, not the plan to use"):
        sealed(plugin("a", transform_plan=lambda plan: None)).decisions.transform_plan(plan)


def test_observers_are_told() -> None:
    told: list[object] = []
    observers = sealed(
        plugin(
            "p", engine_started=lambda engine: told.append(engine), engine_stopped=lambda engine: told.append(engine)
        ),
        plugin("q", request_finished=lambda request: told.append(request.request_id), metrics=lambda: told.append(0)),
    ).observers
    observers.engine_started(ENGINE)
    observers.request_finished(REQUEST)
    observers.metrics("m", {"running": 1.0})
    observers.engine_stopped(ENGINE)
    assert told == [ENGINE, "1", 0, ENGINE]


def test_an_observers_error_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, float]] = []
    observers = sealed(
        plugin("bad", metrics=lambda: fail(SystemExit(1))),
        plugin("good", metrics=lambda metrics: told.append(metrics)),
    ).observers
    with caplog.at_level(logging.WARNING, "tramontane"):
        for _ in range(3):
            observers.metrics("m", {})
    assert observers.errors == {"bad: tramontane_metrics": 3}
    assert len(told) == 3
    assert [record.message for record in caplog.records] == [
        "observer of plugin bad: tramontane_metrics raised SystemExit: 1"
    ]
