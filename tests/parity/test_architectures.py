# SPDX-License-Identifier: Apache-2.0
"""Every architecture against ``transformers`` and against itself, on tiny configurations that show its features."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tramontane.plugins import installed
from tramontane.testing.invariants import INVARIANTS, Subject
from tramontane.testing.oracle import Oracle
from tramontane.testing.parity import assert_half_precision, assert_parity

SEEDS = (0, 1)
BACKEND = "torch"
COSTLY = ("batched", "bit_for_bit", "block_sizes", "overlapped", "preempted")
"""Checks that hold the engine more than the model; every run takes them with ..."""
KINDS = ("cohere2", "deepseek3", "gemma3", "gptoss", "llama", "mixtral", "phi3", "qwen3next")
"""... one architecture of every kind: plain, with experts, windows, sinks, latents, recurrent layers, long ropes."""


@frozen
class Case:
    """A sample of an architecture with one draw of weights."""

    architecture: str
    sample: str
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """Content of ``config.json``."""
        return samples(self.architecture)[self.sample]

    @property
    def first(self) -> bool:
        """The one case of its class that every run of the tests takes."""
        same = [
            name
            for name, config in samples(self.architecture).items()
            if config["architectures"] == self.config["architectures"]
        ]
        return self.seed == SEEDS[0] and self.sample == same[0]

    def __str__(self) -> str:
        return f"{self.architecture}-{self.sample}-{self.seed}"


@cache
def samples(architecture: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = installed().catalogs.architectures.get(architecture).load("samples")()
    return found


def ours() -> list[str]:
    """The architectures of this repository."""
    catalog = installed().catalogs.architectures
    owners = ((name, catalog.owner(name)) for name in catalog.names())
    return [n for n, owner in owners if owner and (owner.distribution or "").startswith("tramontane-arch-")]


def others() -> list[str]:
    """Backends for the processor beside the stock ones."""
    specs = (spec for spec in installed().catalogs.backends if "cpu" in spec.devices and spec.name != BACKEND)
    return [spec.name for spec in specs if not spec.name.startswith("reference")]


def on(backend: str, path: Path) -> Subject:
    """A checkpoint on another backend; skips, with its reason, where that cannot run."""
    reason = installed().catalogs.backends.get(backend).load("backend").probe()
    if reason is not None:
        pytest.skip(reason)
    return Subject(path, {"backend": backend})


def parameters(*, seeds: tuple[int, ...], rest: bool = True) -> list[Any]:
    """All cases; those that are not a class's first are for the long run."""
    cases = [Case(name, sample, seed) for name in ours() for sample in samples(name) for seed in seeds]
    chosen = [case for case in cases if rest or case.first]
    return [pytest.param(c, id=str(c), marks=[] if c.first else [pytest.mark.full]) for c in chosen]


def invariances() -> list[Any]:
    """Every case with every check."""
    found = []
    for given in parameters(seeds=SEEDS[:1]):
        (case,) = given.values
        for check in INVARIANTS:
            long = check in COSTLY and case.architecture not in KINDS
            marks = given.marks or ([pytest.mark.full] if long else [])
            found.append(pytest.param(case, check, id=f"{case}-{check}", marks=marks))
    return found


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    given: Case = request.param
    return given


@pytest.fixture(scope="module")
def oracle(case: Case) -> Oracle:
    return Oracle.make(case.config, case.seed)


@pytest.fixture(scope="module")
def subject(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(oracle.save(tmp_path_factory.mktemp("model")), {"backend": BACKEND})


@pytest.mark.parametrize("case", parameters(seeds=SEEDS), indirect=True, scope="module")
def test_parity(subject: Subject, oracle: Oracle) -> None:
    assert_parity(subject, oracle)


@pytest.mark.parametrize(("case", "check"), invariances(), indirect=["case"], scope="module")
def test_invariance(subject: Subject, check: str) -> None:
    INVARIANTS[check](subject)


@pytest.mark.parametrize("backend", others())
@pytest.mark.parametrize("case", parameters(seeds=SEEDS[:1]), indirect=True, scope="module")
def test_parity_on_other_backends(subject: Subject, oracle: Oracle, backend: str) -> None:
    assert_parity(on(backend, subject.path), oracle)


@pytest.mark.full
@pytest.mark.parametrize("check", INVARIANTS)
@pytest.mark.parametrize("backend", others())
@pytest.mark.parametrize("case", parameters(seeds=SEEDS[:1], rest=False), indirect=True, scope="module")
def test_invariance_on_other_backends(subject: Subject, backend: str, check: str) -> None:
    INVARIANTS[check](on(backend, subject.path))


@pytest.mark.parametrize("case", parameters(seeds=SEEDS[:1], rest=False), indirect=True, scope="module")
def test_half_precision(case: Case, tmp_path: Path) -> None:
    oracle = Oracle.make(case.config, case.seed)
    assert_half_precision(Subject(oracle.rounded(tmp_path), {"backend": BACKEND}), oracle)
