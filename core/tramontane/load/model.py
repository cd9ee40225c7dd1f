# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a model that runs: the one place that walks the whole way.

reference -> files (hub) -> checkpoint (loader) -> architecture and configuration -> blueprint (builder) -> plan ->
weights -> memory -> cache -> kernels -> captured program -> runner. Each stage lives in a module of its own.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import define

from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.build.budget import MemoryPlan, budget_blocks
from tramontane.build.fill import fill_weights
from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint
from tramontane.engine import EngineConfig
from tramontane.load.adapters import announce, find_adapter, make_table
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.dump import dump_kept, dump_stored
from tramontane.load.find import choose_backend, open_reference
from tramontane.load.foreign import translated
from tramontane.load.options import LoadOptions
from tramontane.load.program import bind, capture_step
from tramontane.load.quantize import check_importances
from tramontane.load.text import TextSide, text_side
from tramontane.memory import format_bytes
from tramontane.ops import TakeRows
from tramontane.plugins import Plugins, installed
from tramontane.prepare import BatchBuffers
from tramontane.progress import Progress
from tramontane.quantization import Importances
from tramontane.records import ArchitectureSpec
from tramontane.runner import Model, ModelRunner
from tramontane.sampler import Sampler
from tramontane.states import StateStore

if TYPE_CHECKING:
    from tramontane.adapters import AdapterTable

_log = logging.getLogger(__name__)


@define(eq=False, kw_only=True)
class LoadedModel:
    """A model ready to run, and what frontends want to know about it."""

    name: str
    architecture: ArchitectureSpec
    config: Any
    plan: ModelPlan
    memory: MemoryPlan
    model: Model
    blueprint: Blueprint
    backend: Backend
    runner: ModelRunner
    engine: EngineConfig
    text: TextSide
    checkpoint: Checkpoint
    adapters: AdapterTable
    capture_note: str
    """``captured``, or why not."""
    options: LoadOptions
    """How it was asked to be loaded."""
    plugins: Plugins
    """Who brought its parts."""
    seconds: float = 0.0

    def close(self) -> None:
        """Let go of the files."""
        self.checkpoint.close()


def load_model(
    ref: str, options: LoadOptions | None = None, *, plugins: Plugins | None = None, progress: Progress | None = None
) -> LoadedModel:
    """Load ``ref``: a local directory or file, a hub id, or a name that a plugin resolves.

    Raises:
        HubError: The reference cannot be resolved to files.
        CheckpointError: The files are damaged or do not fit the model.
        UnknownNameError: No installed plugin has the architecture, format or backend.
        PlanError: The model cannot be built as asked.
    """
    options, plugins = options or LoadOptions(), plugins or installed()
    started = time.monotonic()
    importances = calibrated(ref, options, plugins, progress)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    checkpoint = open_reference(ref, options, plugins, progress)
    dump_stored(checkpoint)
    try:
        checkpoint = translated(checkpoint, options, plugins)
        loaded = _build(ref, checkpoint, options, plugins, importances, progress)
    except BaseException:
        checkpoint.close()
        raise
    loaded.seconds = time.monotonic() - started
    return loaded


def calibrated(
    ref: str, options: LoadOptions, plugins: Plugins, progress: Progress | None = None
) -> Importances | None:
    """The importances that the options ask to collect before quantizing."""
    check_importances(options)
    if options.calibrate is None:
        return None
    from tramontane.load.calibrate import calibrate  # which loads a model itself

    return calibrate(ref, Path(options.calibrate), options, plugins, progress).importances


def _build(
    ref: str,
    checkpoint: Checkpoint,
    options: LoadOptions,
    plugins: Plugins,
    importances: Importances | None,
    progress: Progress | None,
) -> LoadedModel:
    backend = choose_backend(options, plugins)
    made = design(checkpoint, options, plugins, backend)
    blueprint, model = made.blueprint, made.model
    take = Builder(blueprint).op(TakeRows())
    table = make_table(made, checkpoint.config, options, plugins, backend)
    adapters = {name: find_adapter(path, table, options, plugins, progress) for name, path in options.adapters.items()}
    plan = plan_weights(made, checkpoint, options, plugins, backend, importances)
    dump_kept(plan)
    fill_weights(plan, blueprint, backend, progress)
    bind(blueprint, backend, plugins)
    max_rows, max_tokens = options.engine.max_num_seqs, options.engine.max_batched_tokens
    blocks, memory = _budget(made, backend, options, plan, sum(found.fitted.nbytes for found in adapters.values()))
    backend.make_cache(made.layout, list(blueprint.caches.values()), blocks)
    states = _states(made, options, backend)
    buffers = BatchBuffers(
        made.layout,
        max_tokens=max_tokens,
        max_rows=max_rows,
        max_outputs=max_tokens,
        max_model_len=made.max_model_len,
        device=backend.device,
        columns=table.columns,
    )
    runner = ModelRunner(
        model=model,
        take=take,
        buffers=buffers,
        sampler=Sampler(_vocab(made.config), backend.device),
        cache_layout=made.layout,
        num_blocks=blocks,
        max_model_len=made.max_model_len,
        vocab_size=_vocab(made.config),
        states=states,
        adapters=table,
    )
    for name, found in adapters.items():
        announce(table.put(name, found.ready(table.dtype)))
    note = capture_step(runner, blueprint, backend, plugins, options)
    text = text_side(checkpoint, options, plugins)
    if text.tokenizer is not None:
        runner.sampler.breaker_ids = text.tokenizer.breaker_ids
    return LoadedModel(
        name=ref,
        architecture=made.architecture,
        config=made.config,
        plan=plan,
        memory=memory,
        model=model,
        blueprint=blueprint,
        backend=backend,
        runner=runner,
        engine=options.engine,
        text=text,
        checkpoint=checkpoint,
        adapters=table,
        capture_note=note,
        options=options,
        plugins=plugins,
    )


def _vocab(config: Any) -> int:
    return int(config.vocab_size)


def _budget(
    made: Design, backend: Backend, options: LoadOptions, plan: ModelPlan, adapters: int
) -> tuple[int, MemoryPlan]:
    engine, free = options.engine, backend.free_memory()
    vocab, width = _vocab(made.config), made.blueprint.dtype.itemsize
    logits = engine.max_num_seqs * vocab * (4 + width)
    arena = engine.max_batched_tokens * _widest(plan) * width * (2 if adapters else 1)  # one more for their program
    states = _state_slots(options) * made.layout.state_bytes
    blocks = budget_blocks(
        made.layout,
        free=max(0, free - logits - arena - states - adapters),
        max_model_len=made.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        asked_bytes=options.kv_memory,
        asked_blocks=engine.num_blocks,
    )
    memory = MemoryPlan(
        weights=plan.nbytes,
        arena=arena,
        logits=logits,
        cache=blocks * made.layout.block_bytes,
        states=states,
        adapters=adapters,
        blocks=blocks,
        free=free,
    )
    _log.info("memory: %s", memory.describe())
    holds = made.layout.longest(blocks, made.max_model_len)
    if holds < made.max_model_len:
        _log.warning(
            "the cache of %s holds %d tokens of one sequence, fewer than the %d that the model is set to",
            format_bytes(memory.cache),
            holds,
            made.max_model_len,
        )
    return blocks, memory


def _widest(plan: ModelPlan) -> int:
    """Features of activations alive at once, roughly: four times the widest matrix that is not the head."""
    return 4 * max((w.shape[-2] for w in plan.weights if "rows" not in w.uses and not w.is_head), default=1)


def _states(made: Design, options: LoadOptions, backend: Backend) -> StateStore | None:
    """Allocate the states of recurrent layers and show each layer its own."""
    if not made.layout.state_layers:
        return None
    store = StateStore.allocate(made.layout, _state_slots(options), backend.device)
    for slot in made.blueprint.caches.values():
        slot.states = store.tensors.get(slot.path, ())
    return store


def _state_slots(options: LoadOptions) -> int:
    """Padding, one for each running sequence, and the snapshots."""
    return 1 + options.engine.max_num_seqs + options.engine.state_snapshots
