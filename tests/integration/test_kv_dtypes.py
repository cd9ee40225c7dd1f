# SPDX-License-Identifier: Apache-2.0
"""Caches of fewer bits: every backend codes and reads them alike, and what they cost in exactness is what docs say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tramontane.errors import ConfigError
from tramontane.plugins import Plugins, installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

COST = {"bfloat16": 2e-2, "fp8": 0.15, "int8": 4e-2}
"""Largest difference of logits to a float32 cache, relative to the largest logit, on random weights without routing:
where experts nearly tie, any rounding chooses others."""
DENSE = ("llama", "gemma2")
AGREE = 2e-2
"""Between backends: the same codes but for numbers so near the middle of two that another order of sums decides."""
FAMILIES = (*DENSE, "gptoss", "deepseek3", "qwen3next")
PROMPT = tuple(range(3, 51))


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """What is installed."""
    return installed()


def _content(plugins: Plugins, family: str) -> Mapping[str, Any]:
    if family not in {spec.name for spec in plugins.catalogs.architectures}:
        pytest.skip(f"{family} is not installed")
    found: Mapping[str, Any] = next(iter(plugins.catalogs.architectures.get(family).load("samples")().values()))
    return found


def _difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _backends(plugins: Plugins) -> list[str]:
    native = [
        spec.name for spec in plugins.catalogs.backends if spec.name == "cpu" and spec.load("backend").probe() is None
    ]
    return ["reference", "torch", *native]


CASES = [
    pytest.param(family, kv_dtype, marks=() if family == "llama" or kv_dtype == "int8" else pytest.mark.full)
    for family in FAMILIES
    for kv_dtype in COST
]
"""Every kind of cache with the narrowest entries, and every type of entry with one kind; the rest in the long run."""


@pytest.mark.parametrize(("family", "kv_dtype"), CASES)
def test_backends_agree_and_little_is_lost(family: str, kv_dtype: str, tmp_path: Path, plugins: Plugins) -> None:
    path = write_random(tmp_path / "model", _content(plugins, family), plugins=plugins)
    exact = Harness.load(path, plugins=plugins, backend="torch", dtype="float32").logits(PROMPT)
    found = {}
    for backend in _backends(plugins):
        harness = Harness.load(path, plugins=plugins, backend=backend, dtype="float32", kv_dtype=kv_dtype)
        found[backend] = harness.logits(PROMPT)
        if family in DENSE:
            assert _difference(found[backend], exact) < COST[kv_dtype], backend
        # Token by token, the same entries are read that a whole prompt wrote.
        together = harness.continuations([PROMPT[:20], PROMPT[:5]], 4)
        assert [len(one.token_ids) for one in together] == [4, 4]
    assert not np.array_equal(found["reference"], exact), "the cache kept float32"
    for backend, logits in found.items():
        assert _difference(logits, found["reference"]) < AGREE, backend


@pytest.mark.parametrize("kv_dtype", ["fp8", "int8"])
def test_a_cache_of_fewer_bits_takes_less_memory(kv_dtype: str, tmp_path: Path, plugins: Plugins) -> None:
    path = write_random(tmp_path / "model", _content(plugins, "llama"), plugins=plugins)
    wide, narrow = (
        Harness.load(path, plugins=plugins, backend="torch", dtype="float32", kv_dtype=name).loaded.runner.cache_layout
        for name in ("auto", kv_dtype)
    )
    assert narrow.page_bytes < wide.page_bytes / (3.9 if kv_dtype == "fp8" else 2.5)


def test_a_type_that_a_cache_cannot_have_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    path = write_random(tmp_path / "model", _content(plugins, "llama"), plugins=plugins)
    with pytest.raises(ConfigError, match="key-value cache"):
        Harness.load(path, plugins=plugins, backend="torch", kv_dtype="int3")
