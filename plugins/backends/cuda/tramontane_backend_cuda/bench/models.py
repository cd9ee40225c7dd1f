# SPDX-License-Identifier: Apache-2.0
"""Models with random weights, made on the device: no checkpoint is read and the host holds nothing of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, frozen

from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.build.plan import ModelPlan, WeightPlan
from tramontane.cache.spec import CacheLayout, plan_layout
from tramontane.config import read_config
from tramontane.engine import EngineConfig, EngineCore
from tramontane.load import LoadOptions
from tramontane.load.budgeting import budget, step_memory
from tramontane.load.design import Design
from tramontane.load.program import bind, capture_step
from tramontane.ops import Runtime, TakeRows
from tramontane.plugins import Plugins
from tramontane.prepare import BatchBuffers
from tramontane.runner import ModelRunner
from tramontane.sampler import Sampler
from tramontane.schemes import Dense, Scheme
from tramontane.weights import Matrix
from tramontane_backend_cuda.bench.weights import SchemeOf, fill_random


@frozen(kw_only=True)
class Shape:
    """One model: ``config.json``, and what it is called in the table."""

    name: str
    config: Mapping[str, Any]


def llama(name: str, *, hidden: int, width: int, layers: int, heads: int, kv: int, vocab: int, tied: bool) -> Shape:
    """A Llama of these sizes."""
    return Shape(
        name=name,
        config={
            "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "max_position_embeddings": 131072, "tie_word_embeddings": tied,
            "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        },
    )  # fmt: skip


ONE_B = llama("1B", hidden=2048, width=8192, layers=16, heads=32, kv=8, vocab=128256, tied=True)
EIGHT_B = llama("8B", hidden=4096, width=14336, layers=32, heads=32, kv=8, vocab=128256, tied=False)
THIRTY_B = Shape(
    name="30B-A3B",
    config={
        "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
        "max_position_embeddings": 40960, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    },
)  # fmt: skip
TINY = llama("tiny", hidden=64, width=128, layers=2, heads=4, kv=2, vocab=300, tied=False)
TINY_MOE = Shape(
    name="tiny-moe",
    config={**THIRTY_B.config, "vocab_size": 300, "hidden_size": 64, "intermediate_size": 64,
            "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 512},
)  # fmt: skip


@define(eq=False)
class Made:
    """A model that runs, and what a step of it reads."""

    core: EngineCore
    runner: ModelRunner
    layout: CacheLayout
    note: str
    """``captured``, or why not."""
    weight_bytes: int
    """Of all weights that a decoding token reads: an embedding that is no head counts for nothing, a mixture's experts
    by the share that a token takes."""
    flops_per_token: float


def make(
    shape: Shape, scheme_of: SchemeOf, backend: Backend, plugins: Plugins, engine: EngineConfig, **options: Any
) -> Made:
    """Build a model with random weights in the given schemes, bfloat16 activations and a cache as large as fits."""
    spec = plugins.catalogs.architectures.get(shape.config["architectures"][0])
    config = read_config(spec.load("config"), shape.config)
    length = int(options.pop("max_model_len", 4096))
    chosen = LoadOptions(engine=engine, **options)
    blueprint = Blueprint(Runtime(backend.device), torch.bfloat16, torch.bfloat16, length)
    model = spec.load("model")(config, Builder(blueprint))
    take = Builder(blueprint).op(TakeRows())
    layout = plan_layout({name: slot.spec for name, slot in blueprint.caches.items()}, engine.block_tokens)
    fill_random(blueprint, scheme_of, backend)
    bind(blueprint, backend, plugins)
    design = Design(spec, config, model, blueprint, length, layout)
    plan = _plan(blueprint)
    memory = budget(design, step_memory(design, take, backend, chosen, plan), backend, chosen, plan)
    backend.make_cache(layout, list(blueprint.caches.values()), memory.blocks)
    runner = ModelRunner(
        model=model,
        take=take,
        buffers=BatchBuffers(
            layout,
            max_tokens=engine.max_batched_tokens,
            max_rows=engine.max_num_seqs,
            max_outputs=engine.max_batched_tokens,
            max_model_len=length,
            device=backend.device,
            fill=backend.fill(),
        ),
        sampler=Sampler(config.vocab_size, backend.device, draw=backend.draw),
        cache_layout=layout,
        num_blocks=memory.blocks,
        max_model_len=length,
        vocab_size=config.vocab_size,
        guard=backend.guard,
    )
    note = capture_step(runner, blueprint, backend, plugins, chosen)
    read, flops = _work(blueprint, shape)
    return Made(EngineCore(runner, engine), runner, layout, note, read, flops)


def _plan(blueprint: Blueprint) -> ModelPlan:
    """As much of a plan as a budget asks for."""
    weights = tuple(
        WeightPlan(path=matrix.path, shape=matrix.shape, uses=frozenset(matrix.uses), parts=())
        for matrix in blueprint.matrices.values()
    )
    return ModelPlan(architecture="random", dtype=blueprint.dtype, weights=weights, params=())


def _work(blueprint: Blueprint, shape: Shape) -> tuple[int, float]:
    """Bytes that a decoding token reads of weights, and floating-point operations of a token in them."""
    nbytes, flops = 0.0, 0.0
    taken = shape.config.get("num_experts_per_tok", 1) / shape.config.get("num_experts", 1)
    for matrix in blueprint.matrices.values():
        if matrix.uses == {"rows"}:
            continue
        share = 1.0 if matrix.experts is None else taken
        nbytes += share * matrix.storage().nbytes
        flops += share * 2 * torch.Size(matrix.shape).numel()
    return int(nbytes), flops


def dense(matrix: Matrix) -> Scheme:
    """bfloat16 throughout."""
    return Dense(torch.bfloat16)


def quantized(scheme: Scheme, head: Scheme) -> SchemeOf:
    """A scheme for layers and one for the head; embeddings, routers and what is used along both axes stay bfloat16."""

    def choose(matrix: Matrix) -> Scheme:
        if matrix.uses & {"rows", "router", "absorbed"}:
            return Dense(torch.bfloat16)
        return head if matrix.path.split(".")[-1] == "lm_head" else scheme

    return choose


__all__ = ["EIGHT_B", "ONE_B", "THIRTY_B", "TINY", "TINY_MOE", "Made", "Shape", "dense", "make", "quantized"]
