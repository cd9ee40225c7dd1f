# SPDX-License-Identifier: Apache-2.0
"""Whole models whose weights are quantized while they load: on this backend as on stock torch, captured as eager."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tramontane.plugins import Plugins
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane_backend_cpu.precision import VARIABLE
from tramontane_backend_cpu.program import NativeProgram

TYPES = ("q8_0", "q4k", "q6k", "hqq4", "nf4", "fp8")
MORE_TYPES = ("q4_0", "q5_0", "hqq8", "int8", "mxfp4")
"""Their products are tested by themselves; whole models of them are for the full run."""
PROMPT = tuple(range(3, 51))
ROUNDED, EXACT = 4e-2, 2e-5
"""Largest difference of logits, relative to the largest: activations of eight bits, or sums in another order."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    """A tiny llama whose rows are whole K blocks."""
    content = dict(next(iter(plugins.catalogs.architectures.get("llama").load("samples")().values())))
    content |= {"hidden_size": 256, "intermediate_size": 512}
    return write_random(tmp_path_factory.mktemp("model") / "llama", content, plugins=plugins)


def _load(model: Path, plugins: Plugins, quant: str, backend: str = "cpu", *, capture: bool = True) -> Harness:
    if quant not in {spec.name for spec in plugins.catalogs.quantizers}:
        pytest.skip(f"no plugin here quantizes to {quant}")
    return Harness.load(model, plugins=plugins, backend=backend, quant=quant, dtype="float32", capture=capture)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("quant", [*TYPES, *(pytest.param(name, marks=pytest.mark.full) for name in MORE_TYPES)])
def test_as_stock_torch(quant: str, model: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = _load(model, plugins, quant, "torch").logits(PROMPT)
    ours = _load(model, plugins, quant)
    assert isinstance(ours.loaded.runner.program, NativeProgram)
    assert ours.loaded.runner.program.native, "one call for the whole step"
    assert _difference(ours.logits(PROMPT), theirs) < ROUNDED
    monkeypatch.setenv(VARIABLE, "1")
    assert _difference(_load(model, plugins, quant).logits(PROMPT), theirs) < EXACT


@pytest.mark.parametrize("quant", ["q8_0", "q4k", "nf4"])
def test_captured_is_eager_bit_for_bit(quant: str, model: Path, plugins: Plugins) -> None:
    recorded, eager = (_load(model, plugins, quant, capture=capture) for capture in (True, False))
    assert np.array_equal(recorded.logits(PROMPT), eager.logits(PROMPT))
    ours, theirs = (one.continuations([PROMPT, PROMPT[:5]], 6) for one in (recorded, eager))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.token_ids == other.token_ids
        assert np.array_equal(mine.logprobs_SV, other.logprobs_SV)
