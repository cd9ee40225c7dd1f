# SPDX-License-Identifier: Apache-2.0
"""Weights whose layout an earlier start kept (``weights_cache``): mapped, not packed, and the same bits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from tramontane.build import fill
from tramontane.plugins import Plugins
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

PROMPT = tuple(range(3, 20))


def write(folder: Path, architecture: str, plugins: Plugins, **changes: int) -> Path:
    """A tiny random model."""
    content = dict(next(iter(plugins.catalogs.architectures.get(architecture).load("samples")().values())))
    return write_random(folder, content | changes, plugins=plugins)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    """One whose rows are whole K blocks."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    return write(folder, "llama", plugins, hidden_size=256, intermediate_size=512)


def load(model: Path, plugins: Plugins, cache: Path | None, quant: str | None = None) -> Harness:
    if quant is not None and quant not in {spec.name for spec in plugins.catalogs.quantizers}:
        pytest.skip(f"no plugin here quantizes to {quant}")
    kept = None if cache is None else str(cache)
    return Harness.load(model, plugins=plugins, backend="cpu", quant=quant, dtype="float32", weights_cache=kept)


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that were read from the checkpoint."""
    found: list[str] = []
    bring = fill.bring
    monkeypatch.setattr(fill, "bring", lambda part: (found.append(part.path), bring(part))[1])
    return found


def check(model: Path, plugins: Plugins, cache: Path, brought: list[str], quant: str | None) -> None:
    """Three starts, without the cache, with an empty one and with a full one: the same logits and fields."""
    plain, first = load(model, plugins, None, quant), load(model, plugins, cache, quant)
    (kept,) = cache.glob("*.safetensors")
    written = kept.stat().st_mtime_ns
    brought.clear()
    second = load(model, plugins, cache, quant)
    assert set(brought) <= {"model.embed_tokens"}, "a table of plain rows stays in the checkpoint's file"
    assert kept.stat().st_mtime_ns == written
    assert list(cache.glob("*.safetensors")) == [kept]
    expected = plain.logits(PROMPT)
    for harness in (first, second):
        np.testing.assert_array_equal(harness.logits(PROMPT), expected)
    for path, matrix in plain.loaded.blueprint.matrices.items():
        for part in range(len(matrix.parts)):
            ours = second.loaded.blueprint.matrices[path].storage().unpack(part)
            for name, value in matrix.storage().unpack(part).items():
                torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("quant", [None, "q4k", "fp8", "q2k"])
def test_mapped_layouts_compute_the_same(
    quant: str | None, llama: Path, plugins: Plugins, brought: list[str], tmp_path: Path
) -> None:
    check(llama, plugins, tmp_path / "kept", brought, quant)


def test_mapped_experts_compute_the_same(plugins: Plugins, brought: list[str], tmp_path: Path) -> None:
    check(write(tmp_path / "model", "qwen3moe", plugins), plugins, tmp_path / "kept", brought, "q8_0")


def test_other_weights_are_kept_elsewhere(plugins: Plugins, tmp_path: Path) -> None:
    model, kept = write(tmp_path / "model", "llama", plugins), tmp_path / "kept"
    before = load(model, plugins, kept).logits(PROMPT)
    (file,) = model.glob("*.safetensors")
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 0x40  # an exponent of the last number
    file.write_bytes(changed)
    after = load(model, plugins, kept).logits(PROMPT)
    assert not np.array_equal(before, after)
    load(model, plugins, kept, "q8_0")
    assert len(list(kept.glob("*.safetensors"))) == 3


def test_a_damaged_file_is_said_and_written_anew(
    plugins: Plugins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, kept = write(tmp_path / "model", "llama", plugins), tmp_path / "kept"
    expected = load(model, plugins, kept).logits(PROMPT)
    (file,) = kept.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "tramontane"):
        np.testing.assert_array_equal(load(model, plugins, kept).logits(PROMPT), expected)
    assert f"{file} is damaged and will be written anew" in caplog.text
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_harms_nothing(
    plugins: Plugins, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept = write(tmp_path / "model", "llama", plugins), tmp_path / "kept"
    monkeypatch.setattr(Path, "replace", _refuse)
    with caplog.at_level(logging.WARNING, "tramontane"):
        load(model, plugins, kept)
    assert "No space left on device" in caplog.text
    assert not list(kept.glob("*")), "nothing half-written is left"


def test_other_backends_say_that_they_keep_nothing(
    plugins: Plugins, llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tramontane"):
        Harness.load(llama, plugins=plugins, backend="torch", dtype="float32", weights_cache=str(tmp_path / "kept"))
    assert "backend torch keeps weights as they are stored" in caplog.text
    assert not (tmp_path / "kept").exists()


def _refuse(path: Path, target: Path) -> None:
    raise OSError(28, "No space left on device", str(target))
