# SPDX-License-Identifier: Apache-2.0
"""Records about running a model: backends, kernels, executors, proposers, pipelines, logits processors."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from tramontane.records.base import Record, lazy, name, texts


@frozen(kw_only=True)
class BackendSpec(Record):
    """What runs ops on a kind of device: memory, layouts, kernels, capture."""

    kind: ClassVar[str] = "backend"

    backend: str = lazy()
    """Lazy ``Backend`` class; its ``probe()`` says whether it works here, and why not."""
    devices: tuple[str, ...] = texts(default=("cpu",))
    """torch device types it serves."""
    priority: int = 0
    """Of the backends that work here, ``auto`` takes the highest."""


@frozen(kw_only=True)
class KernelSpec(Record):
    """One op on some schemes and devices, for a backend that somebody else owns."""

    kind: ClassVar[str] = "kernel"

    op: str = name()
    """Name in the op table."""
    make: str = lazy()
    """``make(request) -> kernel | str``: a callable with the op's signature, or the reason why not."""
    schemes: tuple[str, ...] = texts(default=())
    """Weight schemes it reads; empty for an op without weights."""
    devices: tuple[str, ...] = texts(default=("cpu",))
    """torch device types it runs on."""
    priority: int = 0
    """Of the kernels that accept, the highest wins."""


@frozen(kw_only=True)
class ExecutorSpec(Record):
    """Runs the ranks of one engine: in this process, over torch.distributed, on Ray ..."""

    kind: ClassVar[str] = "executor"

    executor: str = lazy()
    """``make(config) -> Executor``."""
    priority: int = 0
    """Of the executors that can run the asked device map, ``auto`` takes the highest."""


@frozen(kw_only=True)
class ProposerSpec(Record):
    """Proposes draft tokens for speculative decoding."""

    kind: ClassVar[str] = "proposer"

    proposer: str = lazy()
    """``make(engine, options) -> Proposer``."""
    needs_model: bool = False
    """Whether it wants a draft model of its own."""


@frozen(kw_only=True)
class PipelineSpec(Record):
    """A task that is not text generation: embed, rerank, image, speech."""

    kind: ClassVar[str] = "pipeline"

    pipeline: str = lazy()
    """``make(engine, options) -> Pipeline``."""
    task: str = name()
    """The task it serves."""


@frozen(kw_only=True)
class LogitsProcessorSpec(Record):
    """Changes logits before sampling."""

    kind: ClassVar[str] = "logits processor"

    processor: str = lazy()
    """``make(params) -> LogitsProcessor | None``; None where a request does not ask for it."""
    on_host: bool = True
    """Whether it needs the step's tokens on the host; such a processor keeps sampling from being captured."""
