# SPDX-License-Identifier: Apache-2.0
"""Whole models: every installed architecture on this backend against the reference, captured against eager, and the
trained story model, token for token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tramontane.plugins import Plugins, installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import INVARIANTS, Subject
from tramontane_backend_cpu.kernel import NativeKernel
from tramontane_backend_cpu.library import choose_isa, runnable_isas
from tramontane_backend_cpu.program import NativeProgram

STORIES = Path(__file__).resolve().parents[5] / "shared/data/models/tinystories-656k-hf"
CHECKS = (
    pytest.param(("like_reference", "chunked", "batched"), id="kernels"),
    # Captured against eager is compared below, bit for bit; what is thrown out of the cache is the engine's business.
    pytest.param(("captured", "preempted"), id="engine", marks=pytest.mark.full),
)
CUT: Mapping[str, Sequence[str]] = {}
"""Architecture -> what of its step is not native: ops, or torch calls of its own code. Nothing should be here."""


def samples() -> Iterator[Any]:
    """The first sample of each installed architecture; the others are for the full run."""
    for spec in installed().catalogs.architectures:
        if spec.samples is None:
            continue
        for index, (name, content) in enumerate(spec.load("samples")().items()):
            yield pytest.param(spec.name, content, id=f"{spec.name}-{name}", marks=[pytest.mark.full] * bool(index))


@pytest.mark.parametrize("checks", CHECKS)
@pytest.mark.parametrize(("name", "content"), list(samples()))
def test_architectures(
    name: str, content: Mapping[str, Any], checks: Sequence[str], tmp_path: Path, plugins: Plugins
) -> None:
    path = write_random(tmp_path / "model", content, plugins=plugins)
    subject = Subject(path, options={"backend": "cpu"}, plugins=plugins)
    assert subject.plain.loaded.backend.name == "cpu"
    for check in checks:
        INVARIANTS[check](subject)


def first_samples() -> Iterator[Any]:
    """The first sample of each architecture, in both types; bfloat16 of most is for the full run."""
    names = dict.fromkeys(sample.values[0] for sample in samples())
    for name in names:
        yield pytest.param(name, "float32", id=f"{name}-float32")
        full = [] if name in ("llama", "qwen3", "deepseek3", "qwen3next") else [pytest.mark.full]
        yield pytest.param(name, "bfloat16", id=f"{name}-bfloat16", marks=full)


@pytest.mark.parametrize(("name", "dtype"), list(first_samples()))
def test_a_step_is_one_call_and_captured_is_eager_bit_for_bit(
    name: str, dtype: str, tmp_path: Path, plugins: Plugins
) -> None:
    content = next(iter(plugins.catalogs.architectures.get(name).load("samples")().values()))
    path = write_random(tmp_path / "model", content, plugins=plugins)
    prompt = list(range(3, 51))
    recorded, eager = (
        Harness.load(path, plugins=plugins, backend="cpu", dtype=dtype, capture=capture) for capture in (True, False)
    )
    program = recorded.loaded.runner.program
    assert isinstance(program, NativeProgram)
    assert program.cuts == list(CUT.get(name, ())), "what runs outside the native program"
    assert program.native == (not program.cuts)
    for call in recorded.loaded.blueprint.ops:  # the head among them, which stands outside the captured step
        assert isinstance(call.kernel, NativeKernel) or call.op.name in program.cuts, call.op.name
    assert np.array_equal(recorded.logits(prompt), eager.logits(prompt))
    ours, theirs = (one.continuations([prompt, prompt[:5]], 8) for one in (recorded, eager))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.token_ids == other.token_ids
        assert np.array_equal(mine.logprobs_SV, other.logprobs_SV)


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the trained story model is not at {STORIES}")
def test_the_story_model_tells_the_expected_story(isa: str, plugins: Plugins) -> None:
    expected = json.loads((STORIES / "greedy_expected.json").read_text())
    choose_isa(isa)
    try:
        harness = Harness.load(STORIES, plugins=plugins, backend="cpu")
        kernels = [call.kernel for call in harness.loaded.blueprint.ops]
        assert all(isinstance(kernel, NativeKernel) for kernel in kernels)
        ids, prompt = expected["ids"], expected["prompt_ids"]
        assert harness.greedy([prompt], len(ids) - len(prompt)) == [ids[len(prompt) :]]
    finally:
        choose_isa("")
