# SPDX-License-Identifier: Apache-2.0
"""The hook specifications: every example runs, every hook is of one of the three kinds."""

from __future__ import annotations

import doctest
import inspect
from types import ModuleType

import pytest

from tramontane import hooks, records
from tramontane.plugins import Status
from tramontane.plugins.catalogs import KINDS, Catalogs
from tramontane.plugins.events import Decisions, Observers
from tramontane.testing.sealed import sealed

SPECIFICATIONS = {name: value for name, value in vars(hooks).items() if name.startswith("tramontane_")}


def example_of(hook: str) -> ModuleType:
    """A plugin that holds the example of a hook's docstring."""
    plugin = ModuleType(f"example_of_{hook}")
    vars(plugin).update({name: getattr(records, name) for name in records.__all__}, hookimpl=hooks.hookimpl)
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(SPECIFICATIONS[hook]) or ""):
        exec(compile(example.source, hook, "exec"), vars(plugin))
    return plugin


@pytest.mark.parametrize("hook", SPECIFICATIONS)
def test_the_example_of_each_hook_is_a_working_plugin(hook: str) -> None:
    plugins = sealed(example_of(hook), core=False)
    (report,) = plugins.reports
    assert report.status is Status.OK, report.error
    assert report.contributions, f"the example contributes nothing through {hook}"
    short = hook.removeprefix("tramontane_")
    if short in KINDS:
        catalog = getattr(plugins.catalogs, short)
        assert len(catalog) == len(report.contributions)
    else:
        assert report.contributions == (short,)


def test_each_hook_is_asked_for_somewhere() -> None:
    asked = {name for face in (Decisions, Observers) for name in vars(face) if not name.startswith("_")}
    assert {f"tramontane_{name}" for name in [*KINDS, *asked]} >= set(SPECIFICATIONS)
    assert set(SPECIFICATIONS) >= {f"tramontane_{name}" for name in KINDS}


def test_each_kind_has_its_catalog() -> None:
    assert [attribute.name for attribute in Catalogs.__attrs_attrs__] == ["generation", *KINDS]
    for name, kind in KINDS.items():
        assert f"Catalog[r.{kind.__name__}]" == inspect.get_annotations(Catalogs)[name]


@pytest.mark.parametrize("hook", [f"tramontane_{name}" for name in KINDS])
def test_registration_hooks_take_nothing_and_say_what_they_return(hook: str) -> None:
    signature = inspect.signature(SPECIFICATIONS[hook])
    kind = KINDS[hook.removeprefix("tramontane_")]
    assert not signature.parameters
    assert signature.return_annotation == f"Iterable[r.{kind.__name__}]"
