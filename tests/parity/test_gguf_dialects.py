# SPDX-License-Identifier: Apache-2.0
"""GGUF files as llama.cpp writes them (names by the ``gguf`` package, rows in its order) against ``transformers``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from attrs import field, frozen
from safetensors.torch import load_file

from tramontane.plugins import installed
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import TOLERANCE, assert_close
from tramontane.testing.oracle import Oracle

pytest.importorskip("tramontane_quant_gguf", reason="needs the GGUF plugin")

Tensors = dict[str, torch.Tensor]
Writer = gguf.GGUFWriter
LENGTH = 48


@frozen
class Case:
    """One architecture, and what its conversion does beside the common."""

    architecture: str
    gguf: str
    sample: str
    changes: Mapping[str, Any] = field(factory=dict)
    permuted: bool = False
    """Rotary pairs of queries and keys are put side by side."""
    extra: Callable[[Writer, Mapping[str, Any]], None] = lambda writer, config: None
    fuse_qkv: bool = False
    norms_plus_one: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """Content of ``config.json``."""
        spec = installed().catalogs.architectures.get(self.architecture)
        return {**spec.load("samples")()[self.sample], **self.changes}

    def __str__(self) -> str:
        return f"{self.architecture}-{self.sample}{'-fused' if self.fuse_qkv else ''}"


def turned(writer: Writer, config: Mapping[str, Any]) -> None:
    """How many features of a head are turned."""
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(int(dim * config.get("partial_rotary_factor", 0.5)))


def window(writer: Writer, config: Mapping[str, Any]) -> None:
    """The window, 0 for none."""
    writer.add_sliding_window(config.get("sliding_window") or 0)


def longrope(writer: Writer, config: Mapping[str, Any]) -> None:
    """Phi-3: the stretches as tensors, the factor on cosines and sines as a number."""
    window(writer, config)
    rope = config["rope_parameters"]
    trained = rope["original_max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(trained)
    ratio = config["max_position_embeddings"] / trained
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(ratio) / math.log(trained)))
    for which in ("long", "short"):
        writer.add_tensor(f"rope_factors_{which}.weight", np.array(rope[f"{which}_factor"], dtype=np.float32))


def logit_scale(writer: Writer, config: Mapping[str, Any]) -> None:
    """Command R."""
    writer.add_logit_scale(config["logit_scale"])
    if config.get("sliding_window"):
        window(writer, config)


def factors(writer: Writer, config: Mapping[str, Any]) -> None:
    """Granite."""
    writer.add_attention_scale(config["attention_multiplier"])
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])


def delta_net(writer: Writer, config: Mapping[str, Any]) -> None:
    """Qwen3-Next."""
    turned(writer, {**config, "partial_rotary_factor": 0.25})
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_full_attention_interval(config["full_attention_interval"])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
    writer.add_ssm_inner_size(config["linear_value_head_dim"] * config["linear_num_value_heads"])


def sparse(writer: Writer, config: Mapping[str, Any]) -> None:
    """Qwen's mixtures."""
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in config:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])


def capped(writer: Writer, config: Mapping[str, Any]) -> None:
    """Gemma 2."""
    window(writer, config)
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])


PHI2 = {"intermediate_size": 256, "partial_rotary_factor": 0.5}  # its conversion states four times the width
SIXTH = {
    "sliding_window_pattern": 6,
    "query_pre_attn_scalar": 16,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
}
FOURTH = {"no_rope_layer_interval": 4, "num_hidden_layers": 5}
CASES = (
    Case("llama", "llama", "grouped", permuted=True),
    Case("mixtral", "llama", "plain", permuted=True),
    Case("qwen2", "qwen2", "plain_odd_heads"),
    Case("qwen2moe", "qwen2moe", "odd_experts", extra=sparse),
    Case("qwen3", "qwen3", "grouped_tied"),
    Case("qwen3moe", "qwen3moe", "plain", extra=sparse),
    Case("gemma", "gemma", "one_key_head", norms_plus_one=True),
    Case("gemma2", "gemma2", "alternating", {"query_pre_attn_scalar": 16}, extra=capped, norms_plus_one=True),
    Case("gemma3", "gemma3", "older_spelling", {**SIXTH, "num_hidden_layers": 7}, extra=window, norms_plus_one=True),
    Case("phi", "phi2", "half_turned", PHI2, extra=turned),
    Case("phi", "phi2", "half_turned", PHI2, extra=turned, fuse_qkv=True),
    Case("phi3", "phi3", "window_longrope", extra=longrope),
    Case("phi3", "phi3", "plain_odd_heads", extra=window),
    Case("phimoe", "phimoe", "published_name_all_experts_tied", {"attention_bias": True}, extra=window),
    Case("phimoe", "phimoe", "published_name_all_experts_tied", {"lm_head_bias": True, "tie_word_embeddings": False}),
    Case("glm", "chatglm", "half_turned", extra=turned),
    Case("glm", "chatglm", "half_turned", extra=turned, fuse_qkv=True),
    Case("glm4", "glm4", "odd_heads_tied_no_bias", extra=turned),
    Case("starcoder2", "starcoder2", "window_tied", {"sliding_window": None}),
    Case("smollm3", "smollm3", "every_third_without_positions_tied", FOURTH, permuted=True),
    Case("olmo2", "olmo2", "grouped"),
    Case("granite", "granite", "factors_tied", permuted=True, extra=factors),
    Case("granitemoe", "granitemoe", "factors_tied", permuted=True, extra=factors),
    Case("cohere", "command-r", "tied", extra=logit_scale),
    Case("cohere", "command-r", "normed_odd_heads_biases", {"tie_word_embeddings": True}, extra=logit_scale),
    Case("cohere2", "cohere2", "windows_tied", extra=logit_scale),
    Case("qwen3next", "qwen3next", "every_third_attends", extra=delta_net),
    Case("qwen3next", "qwen3next", "every_third_attends", extra=delta_net, fuse_qkv=True),
)


# --- as llama.cpp converts ------------------------------------------------------------------------------------------


def side_by_side(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head: the two halves interleaved."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def stacked(tensors: Tensors) -> Tensors:
    """Experts that are stored one by one, and gate and up that are stored as one, as the conversion has them."""
    found: Tensors = {}
    lists: dict[str, dict[int, torch.Tensor]] = {}
    for name, values in tensors.items():
        single = re.fullmatch(r"(.*\.experts)\.(\d+)\.((?:w[123]|\w+_proj)\.weight)", name)
        if single:
            lists.setdefault(f"{single[1]}.{single[3]}", {})[int(single[2])] = values
        elif name.endswith("block_sparse_moe.input_linear.weight"):
            base = name.removesuffix("input_linear.weight")
            for part, half in zip(("w1", "w3"), values.chunk(2, dim=-2), strict=True):
                found[f"{base}experts.{part}.weight"] = half
        else:
            found[name] = values
    return found | {name: torch.stack([some[i] for i in sorted(some)]) for name, some in lists.items()}


def linear(tensors: Tensors, config: Mapping[str, Any], *, fuse: bool) -> Tensors:
    """Linear layers: inputs by kind and no longer by key head (not so in the first files), values as they are used."""
    found: Tensors = {}
    keys, groups = config["linear_key_head_dim"], config["linear_num_key_heads"]
    values = config["linear_value_head_dim"] * config["linear_num_value_heads"] // groups
    for name, given in tensors.items():
        if name.endswith(".A_log"):
            found[name] = -given.exp()
        elif name.endswith(".dt_bias"):
            found[name.replace("dt_bias", "dt_proj.bias")] = given
        elif ".conv1d." in name:
            found[name] = given.squeeze(1)
        elif name.endswith("norm.weight") and ".linear_attn." not in name:
            found[name] = given + 1
        elif ".in_proj_qkvz." in name and not fuse:
            each = given.unflatten(0, (groups, -1)).split([keys, keys, values, values], dim=1)
            q, k, v, z = (part.flatten(0, 1) for part in each)
            found[name.replace("in_proj_qkvz", "in_proj_qkv")] = torch.cat((q, k, v))
            found[name.replace("in_proj_qkvz", "in_proj_z")] = z
        else:
            found[name] = given
    return found


def fused(tensors: Tensors) -> Tensors:
    """Queries, keys and values of a layer as one tensor."""
    found = dict(tensors)
    for name in [name for name in tensors if ".self_attn.q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        found[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
    return found


def converted(case: Case, tensors: Tensors) -> dict[str, torch.Tensor]:
    """GGUF's name -> values."""
    config, layers = case.config, case.config["num_hidden_layers"]
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.gguf)
    names = gguf.get_tensor_name_map(arch, layers)
    if case.permuted:
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        for part, count in heads.items():
            tensors |= {n: side_by_side(v, count) for n, v in tensors.items() if f".{part}." in n}
    if "linear_num_key_heads" in config:
        tensors = linear(tensors, config, fuse=case.fuse_qkv)
    elif case.fuse_qkv:
        tensors = fused(tensors)
    if case.norms_plus_one:
        tensors = {name: values + 1 if name.endswith("norm.weight") else values for name, values in tensors.items()}
    found = {}
    for name, values in stacked(tensors).items():
        module, _, leaf = name.rpartition(".") if not name.endswith("A_log") else (name, "", "")
        given = names.get_name(module) or names.get_name(module.replace("self_attn.qkv_proj", "self_attn.W_pack"))
        assert given is not None, f"the gguf package has no name for {name}"
        found[f"{given}.{leaf}".removesuffix(".")] = values
    return found


def write(case: Case, oracle: Oracle, folder: Path) -> Path:
    """The model as a GGUF file in float32, made of its Hugging Face checkpoint."""
    config, path = case.config, folder / "model.gguf"
    tensors = load_file(oracle.save(folder / "published") / "model.safetensors")
    writer = Writer(path, case.gguf)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    ropes = oracle.model.config.rope_parameters
    writer.add_rope_freq_base(ropes.get("full_attention", ropes)["rope_theta"])
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    eps = config.get("layer_norm_eps", config.get("norm_epsilon"))
    if eps is not None:
        writer.add_layer_norm_eps(eps)
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "head_dim" in config and case.gguf != "granite":
        writer.add_key_length(config["head_dim"])
    case.extra(writer, config)
    for name, values in converted(case, tensors).items():
        writer.add_tensor(name, values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_is_the_same(case: Case, tmp_path: Path) -> None:
    oracle = Oracle.make(case.config)
    engine = Harness.load(write(case, oracle, tmp_path), backend="torch", dtype="float32", max_model_len=LENGTH)
    prompt = [int(token) for token in np.random.default_rng(0).integers(3, case.config["vocab_size"], LENGTH)]
    assert_close(engine.logits(prompt), oracle.logits(prompt), TOLERANCE, f"{case} from GGUF")
