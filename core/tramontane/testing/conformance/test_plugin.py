# SPDX-License-Identifier: Apache-2.0
"""What holds for every plugin: it loads, says nothing it cannot keep, and costs a start nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tramontane.plugins import Status
from tramontane.plugins.references import references
from tramontane.records import ArchitectureSpec, resolve
from tramontane.testing.conformance.targets import ASK, Target, targets

HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "jinja2")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each target."""
    found = [target.parameter(target, id=target.distribution) for target in targets(metafunc.config)]
    metafunc.parametrize("target", found or [pytest.param(None, marks=pytest.mark.skip(reason=ASK))])


def test_it_loads(target: Target) -> None:
    reports = target.reports
    assert reports, f"{target.distribution} has no entry point in the group tramontane.plugins"
    for report in reports:
        assert report.status is Status.OK, report.line
        assert not report.notes, report.notes


def test_it_offers_something(target: Target) -> None:
    assert any(report.contributions for report in target.reports)


def test_every_reference_resolves(target: Target) -> None:
    for record in target.records:
        for lazy in references(record):
            resolve(lazy, record)


def test_every_architecture_class_has_a_sample(target: Target) -> None:
    for record in target.records:
        if isinstance(record, ArchitectureSpec):
            assert record.samples is not None, f"{record.name} has no samples to be tested on"
            shown = {content["architectures"][0] for content in record.load("samples")().values()}
            assert shown == set(record.classes), f"{record.name}: each of its classes needs a sample"


def test_its_hooks_import_nothing_heavy(target: Target) -> None:
    for loaded in target.plugins.loaded:
        if loaded.id.distribution == target.distribution:
            code = (
                "import importlib.metadata as m, sys\n"
                f"[e] = [e for e in m.entry_points(group='tramontane.plugins') if e.name == {loaded.id.name!r}]\n"
                f"e.load(); print(*[name for name in {HEAVY!r} if name in sys.modules])"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
            assert done.stdout.split() == []
