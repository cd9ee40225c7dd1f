# SPDX-License-Identifier: Apache-2.0
"""How much memory a loaded model's steps take, and what that leaves for the cache.

On a device of its own the largest step is run once, over blocks that nobody owns, and its peak is what it takes. On the
host, where memory is the system's to give, it is estimated from the shapes.
"""

from __future__ import annotations

import logging
from functools import partial

import torch
from attrs import frozen

from tramontane.backends.base import Backend
from tramontane.backends.spread import SpreadBackend
from tramontane.batch import Ctx
from tramontane.build.budget import MemoryPlan, budget_blocks
from tramontane.build.plan import ModelPlan
from tramontane.load.design import Design
from tramontane.load.options import LoadOptions
from tramontane.memory import format_bytes
from tramontane.ops import BoundOp
from tramontane.sampler.select import Knobs, draw_top_p, wide
from tramontane.states import StateStore
from tramontane.tape.capture import synthetic_batch
from tramontane.tape.symbols import Extent

_log = logging.getLogger(__name__)

GRAPH_BYTES = 8 << 20
"""Kept free for each size of step that may be recorded, beside a second set of a step's temporaries that all share. An
estimate: a graph of 400 kernels takes a few MiB of the driver's memory."""


@frozen(kw_only=True)
class StepMemory:
    """Bytes that steps take beside weights and cache."""

    arena: int
    logits: int
    """0 where it is counted in ``arena``."""
    graphs: int
    measured: bool

    @property
    def total(self) -> int:
        """All of it."""
        return self.arena + self.logits + self.graphs


def step_memory(made: Design, take: BoundOp, backend: Backend, options: LoadOptions, plan: ModelPlan) -> StepMemory:
    """Measure the largest step, or estimate it where the backend cannot tell."""
    engine = options.engine
    peaks = [backend.peak(partial(_largest, made, take, backend, options, rows)) for rows in (1, engine.max_num_seqs)]
    found = [peak for peak in peaks if peak is not None]
    if not found:
        arena, logits = estimated_step(made, options, plan)
        return StepMemory(arena=arena, logits=logits, graphs=0, measured=False)
    replays = backend.replays(engine.max_batched_tokens, engine.max_num_seqs) if options.capture is not False else None
    graphs = 0 if replays is None else max(found) + GRAPH_BYTES * len(replays.padding.tokens)
    return StepMemory(arena=max(found), logits=0, graphs=graphs, measured=True)


def estimated_step(made: Design, options: LoadOptions, plan: ModelPlan) -> tuple[int, int]:
    """Bytes of the largest step's activations and of its logits, from the shapes."""
    engine, width = options.engine, made.blueprint.dtype.itemsize
    logits = engine.max_num_seqs * int(made.config.vocab_size) * (4 + width)
    return engine.max_batched_tokens * _widest(plan) * width, logits


@torch.inference_mode()
def _largest(made: Design, take: BoundOp, backend: Backend, options: LoadOptions, rows: int) -> None:
    """A step of as many tokens as there may be, in ``rows`` sequences, with the dearest way to sample from them."""
    engine, layout, slots = options.engine, made.layout, list(made.blueprint.caches.values())
    backend.make_cache(layout, slots, len(layout.groups) + 1)
    store = StateStore.allocate(layout, 2, lambda path: backend.at(path).device) if layout.state_layers else None
    for slot in slots:
        slot.states = store.tensors.get(slot.path, ()) if store is not None else ()
    tokens = engine.max_batched_tokens
    ctx: Ctx = synthetic_batch(
        Extent(tokens, min(engine.max_num_seqs, tokens)),
        min(rows, tokens),
        [group.block_tokens for group in layout.groups],
        backend.device,
        states=bool(layout.state_layers),
    )
    ctx.positions_KT.zero_()  # tables may be shorter than the step
    with backend.guard():
        h_LD = take(made.model.forward(made.model.embed(ctx), ctx), ctx.out_rows_L, ctx=ctx)
        logits_LV = made.model.head(h_LD)
        real = torch.full((logits_LV.shape[0],), 0.5, dtype=wide(backend.device), device=logits_LV.device)
        none = torch.zeros_like(real, dtype=torch.int64)
        draw_top_p(logits_LV, Knobs(real.float(), none, real, real, 0, any_min_p=True), real)
    for slot in slots:
        slot.planes = slot.states = ()


def budget(
    made: Design, step: StepMemory, backend: Backend, options: LoadOptions, plan: ModelPlan, *, adapters: int = 0
) -> MemoryPlan:
    """Divide what is free, now that the weights are loaded. ``adapters``: bytes of those that come with the model.

    Raises:
        OutOfMemoryError: The cache would be too small for anything.
    """
    engine, layout = options.engine, made.layout
    free, states = backend.free_memory(), state_slots(options) * layout.state_bytes
    arena = step.arena * (2 if adapters else 1)  # one more for their program
    taken = step.total - step.arena + arena + states + adapters
    if isinstance(backend, SpreadBackend):
        room = backend.cache_room(layout, list(made.blueprint.caches.values()), taken)
    else:
        room = max(0, free - taken)
    blocks = budget_blocks(
        layout,
        free=room,
        max_model_len=made.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        asked_bytes=options.kv_memory,
        asked_blocks=engine.num_blocks,
        limits=backend.cache_limits,
        exact=step.measured,
    )
    memory = MemoryPlan(
        weights=plan.nbytes,
        arena=arena,
        logits=step.logits,
        graphs=step.graphs,
        cache=blocks * layout.block_bytes,
        states=states,
        adapters=adapters,
        blocks=blocks,
        free=free,
    )
    _log.info("memory: %s", memory.describe())
    holds = layout.longest(blocks, made.max_model_len)
    if holds < made.max_model_len:
        _log.warning(
            "the cache of %s holds %d tokens of one sequence, fewer than the %d that the model is set to",
            format_bytes(memory.cache),
            holds,
            made.max_model_len,
        )
    return memory


def state_slots(options: LoadOptions) -> int:
    """Padding, one for each running sequence, and the snapshots."""
    return 1 + options.engine.max_num_seqs + options.engine.state_snapshots


def _widest(plan: ModelPlan) -> int:
    """Features of activations alive at once, roughly: four times the widest matrix that is not the head."""
    return 4 * max((w.shape[-2] for w in plan.weights if "rows" not in w.uses and not w.is_head), default=1)
