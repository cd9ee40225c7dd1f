# SPDX-License-Identifier: Apache-2.0
"""What PEFT saves, read as data from strangers: every fault has its message."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane.adapters import Adapter
from tramontane.checkpoint import OpenOptions
from tramontane.errors import AdapterError, CheckpointError, ConfigError, UnsafeFormatError
from tramontane_adapter_lora import mlx
from tramontane_adapter_lora.files import detect, open_adapter
from tramontane_adapter_lora.patterns import find_pattern

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "owner/base"}
AT = "base_model.model.model.layers.0.self_attn."


def pair(module: str = "q_proj", rank: int = 2, inputs: int = 4, outputs: int = 6) -> dict[str, Tensor]:
    return {
        f"{AT}{module}.lora_A.weight": torch.ones(rank, inputs),
        f"{AT}{module}.lora_B.weight": torch.ones(outputs, rank),
    }


def folder(path: Path, tensors: dict[str, Tensor] | None = None, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(pair() if tensors is None else tensors, path / "adapter_model.safetensors")
    return path


def opened(path: Path) -> Adapter:
    assert detect(path)
    return open_adapter(path, OpenOptions())


def test_pairs_with_their_ranks_and_scales(tmp_path: Path) -> None:
    tensors = pair() | pair("k_proj", rank=4) | pair("v_proj", rank=3)
    path = folder(
        tmp_path / "a",
        tensors,
        rank_pattern={"k_proj": 4, r"layers\.0\.self_attn\.v_proj": 3},
        alpha_pattern={"^model.layers.0.self_attn.q_proj": 1, "o_proj": 9},
        use_rslora=True,
        target_modules="all-linear",
        lora_dropout=0.5,
        some_new_key={"of": "a later version"},
    )
    with opened(path) as adapter:
        assert (adapter.kind, adapter.base) == ("lora", "owner/base")
        found = {module.rsplit(".", 1)[1]: (pair.rank, pair.scale) for module, pair in adapter.deltas.items()}
        assert found == {
            "q_proj": (2, pytest.approx(1 / 2**0.5)),
            "k_proj": (4, pytest.approx(6 / 2)),
            "v_proj": (3, pytest.approx(6 / 3**0.5)),
        }
        assert next(iter(adapter.deltas)).startswith("model.layers.0.self_attn.")


def test_an_unfinished_save_names_its_adapter(tmp_path: Path) -> None:
    named = {name.replace(".weight", ".default.weight"): tensor for name, tensor in pair().items()}
    with opened(folder(tmp_path / "a", named)) as adapter:
        assert list(adapter.deltas) == [AT.removeprefix("base_model.model.") + "q_proj"]


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "the kind IA3"),
    ({"use_dora": True}, "DoRA"),
    ({"bias": "lora_only"}, "trained biases"),
    ({"lora_bias": True}, "biases of its own"),
    ({"init_lora_weights": "pissa_niter_4"}, "a base model changed while"),
    ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
    ({"modules_to_save": ["lm_head"]}, "whole modules"),
    ({"trainable_token_indices": [1]}, "trained token embeddings"),
    ({"layer_replication": [[0, 1]]}, "replicated layers"),
    ({"r": 0}, "a rank below 1"),
]


@pytest.mark.parametrize(("config", "said"), UNSUPPORTED)
def test_what_is_not_supported_is_named(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(said)) as error:
        opened(folder(tmp_path / "a", **config))
    assert "docs/adapters.md" in (error.value.hint or "")


def test_everything_unsupported_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"DoRA .*; .*whole modules"):
        opened(folder(tmp_path / "a", use_dora=True, modules_to_save=["lm_head"]))


BROKEN: list[tuple[dict[str, Tensor], str]] = [
    ({f"{AT}q_proj.lora_A.weight": torch.ones(2, 4)}, "q_proj has no lora_B"),
    ({f"{AT}q_proj.lora_B.weight": torch.ones(6, 2)}, "q_proj has no lora_A"),
    (pair(rank=3), "its rank is 3, and adapter_config.json says 2"),
    (pair() | {f"{AT}q_proj.lora_B.weight": torch.ones(6, 3)}, "are no pair"),
    (pair() | {f"{AT}q_proj.lora_A.weight": torch.ones(8)}, "are no pair"),
    (pair() | {f"{AT}q_proj.lora_A.weight": torch.ones(2, 4, dtype=torch.int32)}, "no floating-point"),
    (pair() | {f"{AT}q_proj.lora_A.default.weight": torch.ones(2, 4)}, "two tensors lora_A"),
    (pair() | {"base_model.model.lm_head.weight": torch.ones(3, 3)}, "1 tensors hold whole weights"),
    (pair() | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2, 9)}, "token embeddings"),
    (pair() | {f"{AT}q_proj.lora_magnitude_vector.weight": torch.ones(6)}, "DoRA's magnitudes"),
    (pair() | {f"{AT}q_proj.base_layer.bias": torch.ones(6)}, "biases"),
    ({}, "it holds no tensors"),
]


@pytest.mark.parametrize(("tensors", "said"), BROKEN)
def test_broken_weights_are_told(tmp_path: Path, tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(said)):
        opened(folder(tmp_path / "a", tensors))


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    (path / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        opened(path)
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors; it has adapter_config\.json"):
        opened(path)
    (path / "adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")
    for options in (OpenOptions(), OpenOptions(allow_pickle=True)):
        with pytest.raises(UnsafeFormatError, match="as pickle only"):
            open_adapter(path, options)
    (path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        opened(path)
    (path / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        opened(path)
    with pytest.raises(ConfigError, match="lora_alpha"):
        opened(folder(tmp_path / "b", lora_alpha="six"))


def test_files_stay_in_their_folder(tmp_path: Path) -> None:
    path, other = folder(tmp_path / "a"), folder(tmp_path / "b")
    (path / "adapter_model.safetensors").unlink()
    (path / "adapter_model.safetensors").symlink_to(other / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="leads out of its directory"):
        opened(path)


def test_what_is_not_of_peft_is_left_to_others(tmp_path: Path) -> None:
    assert not detect(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "XLORA"}))
    assert not detect(tmp_path)
    assert not mlx.detect(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 8}}))
    assert not detect(tmp_path)
    assert mlx.detect(tmp_path)


def test_patterns_of_strangers_cannot_take_long() -> None:
    assert find_pattern({"proj": 1, "q_proj": 2}, "model.q_proj", 0) == 2
    assert find_pattern({r"layers\.[0-3]\..*proj": 1}, "model.layers.3.mlp.up_proj", 0) == 1
    for pattern in ("(a+)+", "(a|a)*b", ".*.*.*.*x", "a" * 600, "("):
        with pytest.raises(AdapterError, match="pattern"):
            find_pattern({pattern: 1}, "a" * 30, 0)
    with pytest.raises(AdapterError, match="longer than"):
        find_pattern({"a": 1}, "a" * 1000, 0)


def real(name: str) -> Path:
    path = Path(__file__).resolve().parents[5] / "shared/data/adapters" / name
    if not path.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return path


def test_the_trained_adapter_of_a_real_model() -> None:
    with opened(real("peft-phi-1_5-lora-r4")) as adapter:
        assert adapter.base == "microsoft/phi-1_5"
        assert len(adapter.deltas) == 48
        assert {(pair.rank, pair.scale) for pair in adapter.deltas.values()} == {(4, 2.0)}
        assert adapter.deltas["model.layers.23.self_attn.v_proj"].up.shape == (2048, 4)


@pytest.mark.parametrize(
    ("name", "module", "shapes", "scale"),
    [
        ("mlx-qwen2.5-0.5b-lora-r8", "model.layers.22.self_attn.v_proj", ((8, 896), (128, 8)), 20.0),
        ("mlx-discollama-llama3-8b-lora-r8", "model.layers.31.self_attn.q_proj", ((8, 4096), (4096, 8)), 2.0 * 16 / 8),
    ],
)
def test_adapters_that_mlx_trained(
    name: str, module: str, shapes: tuple[tuple[int, int], tuple[int, int]], scale: float
) -> None:
    path = real(name)
    assert mlx.detect(path)
    assert not detect(path)
    with mlx.open_adapter(path, OpenOptions()) as adapter:
        assert len(adapter.deltas) == 4
        pair = adapter.deltas[module]
        assert (pair.down.shape, pair.up.shape, pair.scale) == (*shapes, scale)
        side = load_file(path / "adapters.safetensors")[f"{module}.lora_a"]
        assert torch.equal(pair.down.read(), side.T)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_what_else_mlx_trains_is_refused(tmp_path: Path, kind: str) -> None:
    settings = {"fine_tune_type": kind, "lora_parameters": {"rank": 2, "scale": 1.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert mlx.detect(tmp_path)
    with pytest.raises(AdapterError, match=f"of the kind '{kind}'"):
        mlx.open_adapter(tmp_path, OpenOptions())
