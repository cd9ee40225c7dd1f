# SPDX-License-Identifier: Apache-2.0
"""What holds for every architecture: results depend on tokens alone, and what cannot run is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tramontane.errors import TramontaneError
from tramontane.testing.checkpoints import write_random
from tramontane.testing.conformance.targets import ASK, architectures
from tramontane.testing.invariants import INVARIANTS, Subject

ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
"""Keys under which configurations name the activation."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every sample of every architecture of every target, with every check where a test takes one."""
    checked = "check" in metafunc.fixturenames
    found = []
    for target, record, sample, content in architectures(metafunc.config):
        for check in INVARIANTS if checked else (metafunc.function.__name__.removeprefix("test_"),):
            values = ((target, content), check) if checked else ((target, content),)
            found.append(target.parameter(*values, id=f"{record.name}-{sample}-{check}"))
    nothing = pytest.param(*(None,) * (1 + checked), marks=pytest.mark.skip(reason=f"no architecture to test; {ASK}"))
    names = ("subject", "check") if checked else ("subject",)
    metafunc.parametrize(names, found or [nothing], indirect=["subject"], scope="module")


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A sample with random weights. One thread: tiny models lose more to waiting than they win."""
    target, content = request.param
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = write_random(tmp_path_factory.mktemp("sample"), content, plugins=target.plugins)
    yield Subject(path, plugins=target.plugins)
    torch.set_num_threads(threads)


def test_invariance(subject: Subject, check: str) -> None:
    INVARIANTS[check](subject)


def test_unknown_rope_is_refused(subject: Subject) -> None:
    refused(subject, {"rope_scaling": {"rope_type": "conformal", "factor": 2.0}, "rope_parameters": None}, "conformal")


def test_unknown_activation_is_refused(subject: Subject) -> None:
    content = json.loads((subject.path / "config.json").read_text(encoding="utf-8"))
    keys = [key for key in ACTIVATIONS if key in content] or ACTIVATIONS[:1]
    refused(subject, dict.fromkeys(keys, "conformal"), "conformal")


def refused(subject: Subject, change: dict[str, Any], name: str) -> None:
    """A changed configuration is an error that says ``name``: it never runs as if it had not been there."""
    file = subject.path / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | change), encoding="utf-8")
    try:
        with pytest.raises(TramontaneError, match=name):
            subject.load()
    finally:
        file.write_text(json.dumps(content), encoding="utf-8")
