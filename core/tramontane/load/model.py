# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a model that runs: the one place that walks the whole way.

reference -> files (hub) -> checkpoint (loader) -> architecture and configuration -> blueprint (builder) -> plan ->
weights -> memory -> cache -> kernels -> captured program -> runner. Each stage lives in a module of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import define

from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.build.budget import MemoryPlan
from tramontane.build.fill import fill_weights
from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint
from tramontane.distributed import Share
from tramontane.distributed.team import Team
from tramontane.engine import EngineConfig
from tramontane.load.adapters import announce, find_adapter, make_table
from tramontane.load.auto_map import automatic
from tramontane.load.budgeting import budget, state_slots, step_memory
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.dump import dump_kept, dump_stored
from tramontane.load.find import choose_backend, local_files, open_reference
from tramontane.load.foreign import translated
from tramontane.load.kept import laid_out
from tramontane.load.options import LoadOptions
from tramontane.load.parallel import Connect, check_parallel, device_of_worker, late_files
from tramontane.load.places import AUTO, main_place, placed, settle, spread
from tramontane.load.program import bind, capture_step
from tramontane.load.quantize import check_importances
from tramontane.load.text import TextSide, text_side
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
    team: Team | None = None
    """The other workers, where several share the model."""
    seconds: float = 0.0

    def close(self) -> None:
        """End the other workers, and let go of the files."""
        if self.team is not None:
            self.team.stop()
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
    check_parallel(options, plugins)
    started = time.monotonic()
    if options.tensor_parallel == 1:
        loaded = load_share(ref, options, plugins, Share(), progress=progress)
    else:
        ref = str(local_files(ref, options, plugins, progress))  # fetched once, before the workers look for them
        team = Team.start(ref, options, late_files(plugins))
        try:
            loaded = load_share(ref, options, plugins, team.share, lambda _, device: team.connect(device), progress)
        except BaseException:
            team.stop()
            raise
        loaded.team = loaded.runner.team = team
    loaded.seconds = time.monotonic() - started
    return loaded


def load_share(
    ref: str,
    options: LoadOptions,
    plugins: Plugins,
    share: Share,
    connect: Connect | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load what one of a model's workers holds.

    Args:
        ref: As :func:`load_model`.
        options: As :func:`load_model`.
        plugins: As :func:`load_model`.
        share: Which worker.
        connect: Called with the share and the device once everything is planned and before weights are read; joins the
            workers' group.
        progress: As :func:`load_model`.

    Raises:
        TramontaneError: As :func:`load_model`.
    """
    importances = calibrated(ref, options, plugins, progress)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    checkpoint = open_reference(ref, options, plugins, progress)
    dump_stored(checkpoint)
    try:
        checkpoint = translated(checkpoint, options, plugins)
        return _build(ref, checkpoint, options, plugins, importances, progress, share, connect)
    except BaseException:
        checkpoint.close()
        raise


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
    share: Share,
    connect: Connect | None,
) -> LoadedModel:
    options = options if share.parted else placed(options, checkpoint.config, plugins)
    if options.device_map == AUTO:
        options = automatic(checkpoint, options, plugins)
    backend = choose_backend(main_place(device_of_worker(options, share)), plugins)
    made = design(checkpoint, options, plugins, backend, share)
    blueprint, model = made.blueprint, made.model
    take = Builder(blueprint).op(TakeRows())
    if options.device_map is not None:
        places = spread(blueprint, options, plugins)
        settle(blueprint, places)
        backend = places
    table = make_table(made, checkpoint.config, options, plugins, backend)
    adapters = {name: find_adapter(path, table, options, plugins, progress) for name, path in options.adapters.items()}
    plan = plan_weights(made, checkpoint, options, plugins, backend, importances)
    dump_kept(plan)
    if connect is not None:
        connect(share, backend.device)
    layouts = laid_out(options, checkpoint, plan, backend, share)
    fill_weights(plan, blueprint, backend, progress, layouts)
    if layouts is not None and not layouts.exists:
        layouts.keep(plan, blueprint)
    bind(blueprint, backend, plugins)
    max_rows, max_tokens = options.engine.max_num_seqs, options.engine.max_batched_tokens
    step = step_memory(made, take, backend, options, plan)
    held = sum(found.fitted.nbytes for found in adapters.values())
    memory = budget(made, step, backend, options, plan, adapters=held)
    blocks = share.group.least(memory.blocks, backend.device) if share.parted else memory.blocks
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
        fill=backend.fill(),
    )
    runner = ModelRunner(
        model=model,
        take=take,
        buffers=buffers,
        sampler=Sampler(_vocab(made.config), backend.device, draw=backend.draw),
        cache_layout=made.layout,
        num_blocks=blocks,
        max_model_len=made.max_model_len,
        vocab_size=_vocab(made.config),
        states=states,
        adapters=table,
        share=share,
        guard=backend.guard,
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


def _states(made: Design, options: LoadOptions, backend: Backend) -> StateStore | None:
    """Allocate the states of recurrent layers and show each layer its own."""
    if not made.layout.state_layers:
        return None
    store = StateStore.allocate(made.layout, state_slots(options), lambda path: backend.at(path).device)
    for slot in made.blueprint.caches.values():
        slot.states = store.tensors.get(slot.path, ())
    return store
