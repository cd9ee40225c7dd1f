# SPDX-License-Identifier: Apache-2.0
"""What ``config.json`` says in both generations, and what follows from it. The defaults are their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from tramontane.config import RopeConfig, rope_field
from tramontane.nn.rope import yarn_mscale
from tramontane.ops import Router
from tramontane.weightmap import WeightMap, stacked_experts
from tramontane.weightmap.maps import IGNORED


@frozen(kw_only=True)
class DeepseekV2Config:
    """DeepSeek-V2 (DeepSeek-AI, 2024)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int | None = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    moe_intermediate_size: int = 1407
    n_routed_experts: int | None = 64
    n_shared_experts: int | None = 2
    num_experts_per_tok: int | None = None
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1
    n_group: int | None = None
    topk_group: int | None = None
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "greedy"
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field()
    rope_interleave: bool = True

    @property
    def scale(self) -> float:
        """Factor on attention scores; stretched ropes raise it (YaRN's ``mscale``, on queries and keys)."""
        factor, rope = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5, self.rope
        if rope.kind == "default" or not rope.mscale_all_dim:
            return factor
        return factor * yarn_mscale(rope.factor, rope.mscale_all_dim) ** 2

    def mixes(self, layer: int) -> bool:
        """Whether the layer has experts; the first ones are dense."""
        if not self.n_routed_experts or layer < self.first_k_dense_replace:
            return False
        return layer % self.moe_layer_freq == 0

    @property
    def weight_factor(self) -> float:
        """Factor on the routing weights. As published, V2 scales only what it does not normalize."""
        return 1.0 if self.norm_topk_prob else self.routed_scaling_factor

    @property
    def routing(self) -> Router:
        """How experts are chosen."""
        corrected = self.topk_method == "noaux_tc"
        grouped = self.topk_method != "greedy" and self.n_group is not None
        return Router(
            top_k=self.num_experts_per_tok or 0,
            scoring=self.scoring_func,
            normalize=self.norm_topk_prob,
            scale=self.weight_factor,
            correction=corrected,
            groups=(self.n_group or 1) if grouped else 1,
            top_groups=(self.topk_group or 1) if grouped else 1,
            group_score="best_two" if corrected else "best",
        )


@frozen(kw_only=True)
class DeepseekV3Config(DeepseekV2Config):
    """DeepSeek-V3 and R1 (DeepSeek-AI, 2024 and 2025)."""

    moe_intermediate_size: int = 2048
    n_routed_experts: int | None = 256
    n_shared_experts: int | None = 1
    num_experts_per_tok: int | None = 8
    first_k_dense_replace: int = 3
    n_group: int | None = 8
    topk_group: int | None = 4
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "noaux_tc"
    scoring_func: Literal["softmax", "sigmoid"] = "sigmoid"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    max_position_embeddings: int = 4096

    @property
    def weight_factor(self) -> float:
        """See :attr:`DeepseekV2Config.weight_factor`; V3 scales what it normalizes too."""
        return self.routed_scaling_factor


def weight_map(config: Mapping[str, Any]) -> WeightMap:
    """Experts are stored one by one; the layers behind the last one predict further tokens and are not run."""
    rules = stacked_experts(config["n_routed_experts"]) if config.get("n_routed_experts") else ()
    layers, extra = config["num_hidden_layers"], config.get("num_nextn_predict_layers") or 0
    behind = (re.escape(f"model.layers.{layer}.") + ".*" for layer in range(layers, layers + extra))
    return WeightMap(rules, ignore=(*IGNORED, *behind))
