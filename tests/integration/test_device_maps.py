# SPDX-License-Identifier: Apache-2.0
"""A model spread over several places, by layer, computes what it computes at one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tramontane.backends.spread import SpreadBackend, layer_of
from tramontane.errors import CaptureRefused, ConfigError, PlanError
from tramontane.load.places import count_layers, parse_map
from tramontane.ops import bound
from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

PROMPTS = [list(range(3, 20)), [5, 6, 7]]
THREE = {
    "architectures": ["Qwen3ForCausalLM"], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 256,
}  # fmt: skip


def sample(name: str) -> Mapping[str, Any]:
    return next(iter(installed().catalogs.architectures.get(name).load("samples")().values()))


def assert_spread_is_whole(path: Path, device_map: str, **options: Any) -> Harness:
    whole = Harness.load(path, backend="torch", **options)
    spread = Harness.load(path, device_map=device_map, **options)
    logits, wanted = spread.logits(PROMPTS[0]), whole.logits(PROMPTS[0])
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert spread.greedy(PROMPTS, 6, overlap=True) == whole.greedy(PROMPTS, 6)
    return spread


@pytest.mark.parametrize(
    "device_map", ["cpu/torch=1,cpu/reference=rest", "cpu/reference=2,cpu/torch=1", "cpu/reference=rest; cpu/torch=1"]
)
def test_layers_lie_where_the_map_says(device_map: str, tmp_path: Path) -> None:
    loaded = assert_spread_is_whole(write_random(tmp_path / "model", THREE), device_map).loaded
    backend = loaded.backend
    assert isinstance(backend, SpreadBackend)
    counts = count_layers(parse_map(device_map), 3)
    names = [part.backend for part, count in zip(parse_map(device_map), counts, strict=True) for _ in range(count)]
    for call in loaded.blueprint.ops:
        layer = layer_of(call.path)
        if layer is not None and call.choice is not None:
            assert call.choice.kernel.split(".")[0] == names[layer], call.path
    assert loaded.capture_note == "eager: the model is spread over several devices"


@pytest.mark.parametrize("name", ["gemma2", "mixtral", "deepseek3", "qwen3next"])
def test_windows_experts_latents_and_states_can_be_spread(name: str, tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", sample(name))
    assert_spread_is_whole(path, "cpu/torch=1,cpu/reference=rest")


def test_quantized_layers_can_be_spread(tmp_path: Path) -> None:
    assert_spread_is_whole(write_random(tmp_path / "model", THREE), "cpu/torch=1,cpu/reference=rest", quant="q8_0")


def test_what_an_op_is_given_is_brought_to_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices of one kind cannot be told apart here, so the places where tensors are brought are counted."""
    brought: list[torch.device] = []
    plain = bound.Runtime.bring

    def bring(self: bound.Runtime, inputs: Any, ctx: Any) -> Any:
        brought.append(self.device)
        return plain(self, inputs, ctx)

    monkeypatch.setattr(bound.Runtime, "bring", bring)
    one = Harness.load(write_random(tmp_path / "model", THREE), device_map="cpu/torch=1,cpu/reference=rest")
    one.greedy(PROMPTS[:1], 1)
    assert len(brought) >= sum(call.path.startswith("model.layers.") for call in one.loaded.blueprint.ops) - 3


def test_a_batch_is_carried_whole(tmp_path: Path) -> None:
    """Every tensor of a batch moves, and what is no tensor stays. The meta device stands for another one."""
    one = Harness.load(write_random(tmp_path / "model", THREE), backend="torch")
    seen: list[Any] = []
    build = one.loaded.runner.buffers.build

    def built(*args: Any, **options: Any) -> Any:
        seen.append(build(*args, **options))
        return seen[-1]

    one.loaded.runner.buffers.build = built  # type: ignore[method-assign]
    one.greedy(PROMPTS[:1], 1)
    ctx, away = seen[0], seen[0].on(torch.device("meta"))
    tensors = [name for name in ctx.__annotations__ if isinstance(getattr(ctx, name), torch.Tensor)]
    assert len(tensors) > 5
    assert all(getattr(away, name).device.type == "meta" for name in tensors)
    assert all(t.device.type == "meta" for group in away.groups for t in (group.table_RB, group.slot_T))
    assert away.host is ctx.host
    assert ctx.on(torch.device("cpu")) is ctx


def test_capturing_cannot_be_insisted_on(tmp_path: Path) -> None:
    with pytest.raises(CaptureRefused, match="spread over several devices"):
        Harness.load(write_random(tmp_path / "model", THREE), device_map="cpu/torch=1,cpu=rest", capture=True)


def test_every_place_has_to_hold_its_layers_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller place decides: it holds one layer of three, so a third of each block."""
    from tramontane.backends.reference import ReferenceBackend
    from tramontane.backends.torch import TorchBackend

    monkeypatch.setattr(TorchBackend, "free_memory", lambda self: 1 << 30)
    monkeypatch.setattr(ReferenceBackend, "free_memory", lambda self: 12 << 20)
    path = write_random(tmp_path / "model", THREE)
    options: dict[str, Any] = {"num_blocks": None, "max_num_seqs": 4, "max_batched_tokens": 32, "kv_memory": None}
    tight = Harness.load(path, device_map="cpu/torch=2,cpu/reference=1", **options).loaded
    layout = tight.runner.cache_layout
    room = tight.backend.cache_room(layout, list(tight.blueprint.caches.values()), 0)  # type: ignore[attr-defined]
    assert room == 3 * (12 << 20)
    assert tight.memory.cache <= room // 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a part ''"),
        ("cpu", "a part 'cpu'"),
        ("cpu=some", "'cpu=some'"),
        ("cpu=1,", "a part ''"),
        ("cpu=rest,cpu=rest", "two devices"),
    ],
)
def test_a_map_that_is_none_is_said(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_map(text)


def test_a_map_has_to_name_every_layer_once() -> None:
    assert count_layers(parse_map("cuda:0=2,cuda:1=rest"), 5) == [2, 3]
    assert count_layers(parse_map("cuda:0=2,cpu=3"), 5) == [2, 3]
    for text in ("cpu=4", "cpu=6", "cpu=6,cuda=rest"):
        with pytest.raises(ConfigError, match=r"names \d layers, and the model has 5"):
            count_layers(parse_map(text), 5)


def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cuda:7"):
        Harness.load(write_random(tmp_path / "model", THREE), device_map="cuda:7=1,cpu=rest")
