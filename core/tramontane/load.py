# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a model that runs: the one place that walks the whole way.

reference -> files (hub) -> checkpoint (loader) -> architecture and configuration -> blueprint (builder) -> plan ->
weights -> memory -> cache -> kernels -> captured program -> runner. Each stage lives in a module of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen

from tramontane import hub
from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.build.budget import MemoryPlan, budget_blocks, megabytes
from tramontane.build.fill import fill_weights
from tramontane.build.formats import StoredFormat, detect_formats
from tramontane.build.plan import ModelPlan, make_plan
from tramontane.build.sources import Sources
from tramontane.cache.spec import CacheLayout, plan_layout
from tramontane.chat import ChatTemplate
from tramontane.checkpoint import Checkpoint, OpenOptions
from tramontane.config import parse_dtype, read_config, read_dtype
from tramontane.engine import EngineConfig
from tramontane.errors import CaptureRefused, CheckpointError, ConfigError, PlanError
from tramontane.ops import Op, Runtime, TakeRows
from tramontane.plugins import Plugins, installed
from tramontane.prepare import BatchBuffers
from tramontane.progress import Progress
from tramontane.records import ArchitectureSpec, resolve
from tramontane.runner import Model, ModelRunner
from tramontane.sampler import Sampler
from tramontane.states import StateStore
from tramontane.tape.capture import capture
from tramontane.tokenizer import Tokenizer
from tramontane.weightmap import WeightMap

_log = logging.getLogger(__name__)

DEFAULT_MAX_MODEL_LEN = 32_768
"""A model trained on more is served up to this unless ``max_model_len`` asks for more."""


@frozen(kw_only=True)
class LoadOptions:
    """How to load a model. Everything has a sensible default; names equal the command line's."""

    revision: str | None = None
    token_source: str = "cache"
    offline: bool | None = None
    allow_pickle: bool = False
    arch: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    device: str = "auto"
    backend: str = "auto"
    dtype: str = "auto"
    quant: str | None = None
    kv_dtype: str = "auto"
    kv_memory: int | None = None
    """Bytes for the cache."""
    max_model_len: int | None = None
    threads: int | None = None
    capture: bool | None = None
    """Record the step as a tape: ``None`` tries and falls back with a message, ``True`` insists, ``False`` never."""
    engine: EngineConfig = field(factory=EngineConfig)


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
    tokenizer: Tokenizer | None
    chat_template: ChatTemplate | None
    generation_config: Mapping[str, Any]
    checkpoint: Checkpoint
    capture_note: str
    """``captured``, or why not."""
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
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    checkpoint = open_reference(ref, options, plugins)
    try:
        loaded = _build(ref, checkpoint, options, plugins, progress)
    except BaseException:
        checkpoint.close()
        raise
    loaded.seconds = time.monotonic() - started
    return loaded


def open_reference(ref: str, options: LoadOptions, plugins: Plugins) -> Checkpoint:
    """Find and open a checkpoint without building anything."""
    asked = {"revision": options.revision, "offline": options.offline, "quant": options.quant}
    found = plugins.decisions.resolve_model(ref, asked)
    path = Path(found) if found is not None else hub.resolve(
        ref, revision=options.revision, token_source=options.token_source, offline=options.offline,
        allow_pickle=options.allow_pickle,
    )  # fmt: skip
    loaders = sorted(plugins.catalogs.loaders, key=lambda spec: (-spec.priority, spec.name))
    for spec in loaders:
        if resolve(spec.detect, spec)(path):
            opened = resolve(spec.open, spec)(path, OpenOptions(allow_pickle=options.allow_pickle))
            return opened  # type: ignore[no-any-return]
    kinds = ", ".join(f"{spec.name} ({' '.join(spec.extensions)})" for spec in loaders)
    raise CheckpointError(f"no loader recognizes {path}", hint=f"installed loaders: {kinds}")


def find_architecture(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins) -> ArchitectureSpec:
    """The record for the checkpoint's class, or for ``--arch``."""
    if options.arch is not None:
        return plugins.catalogs.architectures.get(options.arch)
    names = checkpoint.architectures
    if len(names) != 1:
        stated = ", ".join(names) or "none"
        raise CheckpointError(f"{checkpoint.path}: config.json states {stated} as architectures; exactly one is needed",
                              hint="name it with --arch")  # fmt: skip
    return plugins.catalogs.architectures.get(names[0])


@define(eq=False)
class Design:
    """A model built on paper: modules, blueprint and plan, nothing allocated."""

    architecture: ArchitectureSpec
    config: Any
    model: Model
    blueprint: Blueprint
    max_model_len: int
    layout: CacheLayout


def design(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins, backend: Backend) -> Design:
    """Build the model's modules over a blueprint; reads the configuration and no weights."""
    architecture = find_architecture(checkpoint, options, plugins)
    where = f"{checkpoint.path}/config.json"
    config = read_config(resolve(architecture.config, architecture), checkpoint.config, where)
    length = _max_model_len(config, options)
    dtype = _dtype(options.dtype, checkpoint, backend)
    cache_dtype = dtype if options.kv_dtype == "auto" else parse_dtype(options.kv_dtype)
    blueprint = Blueprint(Runtime(backend.device), dtype, cache_dtype, length)
    model = resolve(architecture.model, architecture)(config, Builder(blueprint))
    layout = plan_layout({name: slot.spec for name, slot in blueprint.caches.items()}, options.engine.block_tokens)
    return Design(architecture, config, model, blueprint, length, layout)


def choose_backend(options: LoadOptions, plugins: Plugins) -> Backend:
    """The named backend, or the highest that works on the asked device."""
    catalog = plugins.catalogs.backends
    kind = None if options.device == "auto" else torch.device(options.device).type
    if options.backend != "auto":
        specs = [catalog.get(options.backend)]
    else:
        specs = sorted((s for s in catalog if kind is None or kind in s.devices), key=lambda s: (-s.priority, s.name))
    refused = []
    for spec in specs:
        cls = resolve(spec.backend, spec)
        reason = cls.probe()
        if reason is None:
            return cls() if kind is None else cls(torch.device(options.device))  # type: ignore[no-any-return]
        refused.append(f"{spec.name}: {reason}")
    known = ", ".join(sorted({device for spec in catalog for device in spec.devices}))
    raise PlanError(f"no backend for device {options.device!r} ({'; '.join(refused) or 'none installed'})",
                    hint=f"devices with a backend: {known}")  # fmt: skip


def _build(
    ref: str, checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins, progress: Progress | None
) -> LoadedModel:
    backend = choose_backend(options, plugins)
    made = design(checkpoint, options, plugins, backend)
    blueprint, model = made.blueprint, made.model
    take = Builder(blueprint).op(TakeRows())
    sources = Sources.of(checkpoint, _weight_map(made.architecture, checkpoint), _formats(checkpoint, plugins), blueprint.tied)
    plan = make_plan(made.architecture.name, blueprint, sources, checkpoint)
    plan, _ = plugins.decisions.transform_plan(plan)
    fill_weights(plan, blueprint, backend, progress)
    kernels = _candidates(backend, plugins)
    for bound in blueprint.ops:
        bound.bind(kernels(bound.op))
    max_rows, max_tokens = options.engine.max_num_seqs, options.engine.max_batched_tokens
    blocks, memory = _budget(made, backend, options, plan)
    backend.make_cache(made.layout, list(blueprint.caches.values()), blocks)
    states = _states(made.layout, options, backend)
    buffers = BatchBuffers(made.layout, max_tokens=max_tokens, max_rows=max_rows, max_outputs=max_tokens,
                           max_model_len=made.max_model_len, device=backend.device)  # fmt: skip
    runner = ModelRunner(
        model=model, take=take, buffers=buffers, sampler=Sampler(_vocab(made.config), backend.device),
        cache_layout=made.layout, num_blocks=blocks, max_model_len=made.max_model_len, vocab_size=_vocab(made.config),
        states=states,
    )  # fmt: skip
    note = _capture(runner, made, backend, kernels, options)
    tokenizer, template = _text_side(checkpoint, options, plugins)
    return LoadedModel(
        name=ref, architecture=made.architecture, config=made.config, plan=plan, memory=memory, model=model,
        blueprint=blueprint, backend=backend, runner=runner, engine=options.engine, tokenizer=tokenizer,
        chat_template=template, generation_config=checkpoint.generation_config, checkpoint=checkpoint, capture_note=note,
    )  # fmt: skip


def _weight_map(architecture: ArchitectureSpec, checkpoint: Checkpoint) -> WeightMap:
    """How the checkpoint's names differ from the model's: by its dialect, or by the architecture's own map."""
    if checkpoint.dialect != "hf":
        lazy = architecture.dialects.get(checkpoint.dialect)
        if lazy is None:
            raise CheckpointError(f"architecture {architecture.name} does not know {checkpoint.dialect} checkpoints")
    else:
        lazy = architecture.weight_map
    if lazy is None:
        return WeightMap()
    found = resolve(lazy, architecture)
    return found if isinstance(found, WeightMap) else found(checkpoint.config)  # type: ignore[no-any-return]


def _formats(checkpoint: Checkpoint, plugins: Plugins) -> list[StoredFormat]:
    """The quantization formats that the checkpoint uses."""
    return detect_formats(checkpoint, [resolve(spec.format, spec)() for spec in plugins.catalogs.quant_formats])


def _max_model_len(config: Any, options: LoadOptions) -> int:
    trained = getattr(config, "max_position_embeddings", None)
    if options.max_model_len is not None:
        if options.max_model_len < 1:
            raise ConfigError(f"max_model_len must be above 0, got {options.max_model_len}")
        return options.max_model_len
    return min(trained or DEFAULT_MAX_MODEL_LEN, DEFAULT_MAX_MODEL_LEN)


def _dtype(asked: str, checkpoint: Checkpoint, backend: Backend) -> torch.dtype:
    if asked != "auto":
        return parse_dtype(asked)
    stored = read_dtype(checkpoint.config)
    if stored is None:
        floats = [ref.dtype for ref in checkpoint.tensors.values() if ref.dtype.is_floating_point]
        stored = max(set(floats), key=floats.count, default=torch.bfloat16)
    return backend.choose_dtype(stored)


def _vocab(config: Any) -> int:
    return int(config.vocab_size)


def _candidates(backend: Backend, plugins: Plugins) -> Callable[[Op], Sequence[tuple[str, Any]]]:
    """Kernels for an op: those that plugins contribute for this device, then the backend's own."""
    specs = sorted(
        (s for s in plugins.catalogs.kernels if backend.device.type in s.devices), key=lambda s: (-s.priority, s.name)
    )

    def candidates(op: Op) -> Sequence[tuple[str, Any]]:
        contributed = [(spec.name, resolve(spec.make, spec)) for spec in specs if spec.op == op.name]
        return (*contributed, *backend.candidates(op))

    return candidates


def _budget(made: Design, backend: Backend, options: LoadOptions, plan: ModelPlan) -> tuple[int, MemoryPlan]:
    engine, free = options.engine, backend.free_memory()
    vocab, width = _vocab(made.config), made.blueprint.dtype.itemsize
    logits = engine.max_num_seqs * vocab * (4 + width)
    arena = engine.max_batched_tokens * _widest(plan) * width
    blocks = budget_blocks(
        made.layout, free=max(0, free - logits - arena), max_model_len=made.max_model_len,
        max_num_seqs=engine.max_num_seqs, asked_bytes=options.kv_memory, asked_blocks=engine.num_blocks,
    )  # fmt: skip
    memory = MemoryPlan(weights=plan.nbytes, arena=arena, logits=logits, cache=blocks * made.layout.block_bytes,
                        blocks=blocks, free=free)  # fmt: skip
    _log.info("memory: %s", memory.describe())
    holds = made.layout.longest(blocks, made.max_model_len)
    if holds < made.max_model_len:
        _log.warning("the cache of %s holds %d tokens of one sequence, fewer than the %d that the model is set to",
                     megabytes(memory.cache), holds, made.max_model_len)  # fmt: skip
    return blocks, memory


def _widest(plan: ModelPlan) -> int:
    """Features of activations alive at once, roughly: four times the widest matrix that is not the head."""
    return 4 * max((w.shape[-2] for w in plan.weights if "rows" not in w.uses and not w.is_head), default=1)


def _states(layout: CacheLayout, options: LoadOptions, backend: Backend) -> StateStore | None:
    if not layout.state_layers:
        return None
    slots = 1 + options.engine.max_num_seqs + options.engine.state_snapshots
    return StateStore.allocate(layout, slots, backend.device)


def _capture(runner: ModelRunner, made: Design, backend: Backend, kernels: Any, options: LoadOptions) -> str:
    """Capture the step; a refusal is said once and the model runs its own code."""
    if options.capture is False:
        return "off"
    try:
        with torch.inference_mode():
            tape, runner.program = capture(
                runner.body, made.blueprint.runtime, backend, [g.block_tokens for g in made.layout.groups],
                max_tokens=options.engine.max_batched_tokens, max_outputs=options.engine.max_batched_tokens,
                candidates=kernels, states=bool(made.layout.state_layers),
            )  # fmt: skip
    except CaptureRefused as refusal:
        if options.capture:
            raise
        _log.warning("the step is not captured, it runs the model's code each time: %s", refusal.message)
        return f"eager: {refusal.message}"
    cuts = tape.segments()
    if cuts:
        _log.warning("torch calls of the model's own code cut the captured step into %d segments: %s", len(cuts) + 1,
                     ", ".join(dict.fromkeys(cuts)))  # fmt: skip
    return "captured"


def _text_side(
    checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins
) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """Tokenizer and chat template; a checkpoint without a tokenizer still runs on token ids."""
    raise NotImplementedError
