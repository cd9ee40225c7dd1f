# SPDX-License-Identifier: Apache-2.0
"""Loading checkpoints that do not fit, and what loading costs in memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane.errors import CheckpointError, ConfigError, OutOfMemoryError, PlanError, UnknownNameError
from tramontane.testing.harness import Harness
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")

CONFIG = sample("LlamaForCausalLM", "llama", num_hidden_layers=2)


def tensors(config: dict[str, Any] = CONFIG) -> dict[str, Tensor]:
    """The tensors that a Llama of this configuration has, random."""
    generator = torch.Generator().manual_seed(0)
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "lm_head.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (queries, hidden),
            f"{at}.self_attn.k_proj.weight": (keys, hidden),
            f"{at}.self_attn.v_proj.weight": (keys, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, queries),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
        }
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def write(directory: Path, config: dict[str, Any] = CONFIG, **options: Any) -> Path:
    """A checkpoint on disk; ``change`` edits its tensors first."""
    change: Callable[[dict[str, Tensor]], None] = options.get("change", lambda found: None)
    made = tensors({**CONFIG, **{k: v for k, v in config.items() if v is not None}})
    change(made)
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(made, directory / "model.safetensors", metadata=options.get("metadata"))
    return directory


def test_missing_extra_and_misshaped_tensors_are_named_in_one_message(tmp_path: Path) -> None:
    def spoil(found: dict[str, Tensor]) -> None:
        del found["model.layers.0.mlp.down_proj.weight"], found["model.norm.weight"]
        found["model.layers.1.self_attn.q_proj.weight"] = torch.zeros(63, 64)
        found["model.layers.1.input_layernorm.weight"] = torch.zeros(65)
        found["model.layers.7.extra.weight"] = torch.zeros(1)

    with pytest.raises(CheckpointError) as error:
        Harness.load(write(tmp_path, change=spoil))
    text = error.value.message
    assert "2 missing" in text
    assert "2 of the wrong shape" in text
    assert "1 unexpected" in text
    for name in (
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
        "model.layers.1.self_attn.q_proj.weight is [63, 64] instead of [64, 64]",
        "model.layers.1.input_layernorm.weight is [65] instead of [64]",
        "model.layers.7.extra.weight",
    ):
        assert name in text
    assert error.value.hint


def test_the_debug_log_names_every_tensor_as_stored_and_as_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    with caplog.at_level("INFO", "tramontane"):
        Harness.load(tmp_path)
    assert not [line for line in caplog.messages if line.startswith(("stored", "kept"))]
    with caplog.at_level("DEBUG", "tramontane"):
        Harness.load(tmp_path)
    for name, tensor in tensors().items():
        assert f"stored {name}: float32 {list(tensor.shape)}, {tensor.nbytes} bytes" in caplog.messages
    kept = [line for line in caplog.messages if line.startswith("kept")]
    assert sum(int(re.search(r"(\d+) bytes$", line)[1]) for line in kept) == sum(t.nbytes for t in tensors().values())
    assert any(
        line.startswith("kept model.layers.0.self_attn.q_proj (in model.layers.0.self_attn.qkv") for line in kept
    )


def test_ignored_buffers_are_not_unexpected(tmp_path: Path) -> None:
    def old(found: dict[str, Tensor]) -> None:
        found["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)

    assert Harness.load(write(tmp_path, change=old)).greedy([[1, 2, 3]], 2)


@pytest.mark.parametrize("stored", ["model.embed_tokens.weight", "lm_head.weight"])
def test_tied_weights_are_found_under_either_name(tmp_path: Path, stored: str) -> None:
    gone = {"model.embed_tokens.weight", "lm_head.weight"} - {stored}
    shared = tensors()["lm_head.weight"]

    def tie(found: dict[str, Tensor]) -> None:
        found[stored] = shared.clone()
        for name in gone:
            del found[name]

    harness = Harness.load(write(tmp_path, {**CONFIG, "tie_word_embeddings": True}, change=tie))
    both = Harness.load(
        write(
            tmp_path / "both",
            {**CONFIG, "tie_word_embeddings": True},
            change=lambda f: f.update({"lm_head.weight": shared.clone(), "model.embed_tokens.weight": shared.clone()}),
        )
    )
    assert (harness.logits([1, 2, 3]) == both.logits([1, 2, 3])).all()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"hidden_size": None, "intermediate_size": "wide"}, ConfigError, "intermediate_size"),
        ({"hidden_size": None}, ConfigError, "hidden_size: is missing"),
        ({"architectures": ["LlamaForCausalLm"]}, UnknownNameError, "LlamaForCausalLM"),
        ({"architectures": ["NobodyForCausalLM"]}, UnknownNameError, "NobodyForCausalLM"),
        ({"architectures": None}, CheckpointError, "none as architectures"),
        ({"hidden_act": "mish3"}, PlanError, "mish3"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, ConfigError, "spiral"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    config = {k: v for k, v in {**CONFIG, **change}.items() if v is not None}
    made = write(tmp_path)
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=says):
        Harness.load(made)


def test_a_matrix_of_whole_numbers_asks_for_the_format_that_knows_it(tmp_path: Path) -> None:
    def pack(found: dict[str, Tensor]) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        found[name] = found[name].to(torch.int8)

    with pytest.raises(CheckpointError, match=r"q_proj\.weight is stored as int8"):
        Harness.load(write(tmp_path, change=pack))


def test_a_cache_too_small_for_one_block_says_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="2 blocks of"):
        Harness.load(write(tmp_path), num_blocks=None, kv_memory=1000)


def test_unknown_backend_and_device(tmp_path: Path) -> None:
    made = write(tmp_path)
    with pytest.raises(UnknownNameError, match="abacus"):
        Harness.load(made, backend="abacus")
    with pytest.raises(PlanError, match="no backend for device 'xla'"):
        Harness.load(made, device="xla")
    with pytest.raises(PlanError, match="there is no device 'tpu7'"):
        Harness.load(made, device="tpu7")
    with pytest.raises(PlanError, match="there is no device 'cuda:63' here"):
        Harness.load(made, device="cuda:63")


def test_a_backend_whose_probe_breaks_is_passed_over_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str | None:
        raise AttributeError("no such symbol")

    made = write(tmp_path)
    monkeypatch.setattr("tramontane.backends.torch.TorchBackend.probe", broken)
    with pytest.raises(PlanError, match="its probe failed with AttributeError: no such symbol"):
        Harness.load(made, backend="torch")
    assert "backend torch is broken" in caplog.text


def test_a_model_set_shorter_than_the_recorded_batches_is_captured(tmp_path: Path) -> None:
    harness = Harness.load(write(tmp_path), max_model_len=4, capture=True)
    assert len(harness.greedy([[1, 2]], 2)[0]) == 2


def test_the_stored_type_is_used_where_the_backend_likes_it(tmp_path: Path) -> None:
    def half(dtype: torch.dtype) -> Callable[[dict[str, Tensor]], None]:
        return lambda found: found.update({k: v.to(dtype) for k, v in found.items()})

    for stored, used in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.bfloat16)):
        config = {**CONFIG, "torch_dtype": str(stored).removeprefix("torch.")}
        made = write(tmp_path / str(stored), config, change=half(stored))
        assert Harness.load(made, backend="torch").loaded.plan.dtype is used
        assert Harness.load(made, backend="torch", dtype="float32").loaded.plan.dtype is torch.float32


_PEAK = """
import sys
from tramontane.memory import PeakMemory
from tramontane.testing.harness import Harness
Harness.load(sys.argv[1], backend="torch")  # imports and pools
with PeakMemory() as memory:
    harness = Harness.load(sys.argv[2], backend="torch", num_blocks=16, max_batched_tokens=16)
    logits = harness.logits([1, 2, 3])
print(memory.growth)
"""


def test_loading_keeps_within_the_models_own_size(tmp_path: Path) -> None:
    """Peak of private memory under 1.15 times the weights, for a bfloat16 model converted from nothing."""
    config = {**CONFIG, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "vocab_size": 4096,
              "torch_dtype": "bfloat16"}  # fmt: skip
    made = write(tmp_path / "big", config, change=lambda f: f.update({k: v.bfloat16() for k, v in f.items()}))
    size = sum(t.nbytes for t in load_file(made / "model.safetensors").values())
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(write(tmp_path / "small")), str(made)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    growth = int(done.stdout.split()[-1])
    assert growth < 1.15 * size, f"{growth / 2**20:.0f} MiB for a model of {size / 2**20:.0f} MiB"
