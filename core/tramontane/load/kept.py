# SPDX-License-Identifier: Apache-2.0
"""Which file holds a model's weights as the backend lays them out: its name tells everything that they depend on."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

import tramontane
from tramontane.backends.base import Backend
from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint, MappedTensor
from tramontane.distributed import Share
from tramontane.errors import CheckpointError
from tramontane.load.options import LoadOptions
from tramontane.saved.digests import Digests
from tramontane.saved.laid_out import LaidOutWeights

_log = logging.getLogger(__name__)

_VALUES = ("quant", "organization", "activations", "arch")
_FILES = ("topology", "imatrix", "calibrate")
"""Options that decide the kept weights: what they say, and what the files hold that they name."""


@runtime_checkable
class LaysOut(Protocol):
    """A backend with layouts of its own."""

    @property
    def layouts(self) -> str:
        """Names them; another string whenever their bytes change."""
        ...


def laid_out(
    options: LoadOptions, checkpoint: Checkpoint, plan: ModelPlan, backend: Backend, share: Share
) -> LaidOutWeights | None:
    """The file in ``options.weights_cache`` for these weights; ``None`` if none is wanted, or can be.

    Raises:
        CheckpointError: A file that decides about the weights cannot be read.
    """
    if options.weights_cache is None:
        return None
    if not isinstance(backend, LaysOut):
        _log.warning("backend %s keeps weights as they are stored: there is nothing to cache", backend.name)
        return None
    folder = Path(options.weights_cache).expanduser()
    try:
        facts = [*_facts(options, plan, backend.layouts, share), *_contents(options, checkpoint, folder)]
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror or error}") from error
    key = blake2b("\n".join(facts).encode(), digest_size=16).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", checkpoint.path.name) or plan.architecture
    return LaidOutWeights(folder / f"{name}-{key}.safetensors")


def _facts(options: LoadOptions, plan: ModelPlan, layouts: str, share: Share) -> Iterator[str]:
    """What is known without reading weights."""
    yield f"{tramontane.__version__} {layouts} {plan.architecture} {plan.dtype}"
    yield f"{share.shard.rank} of {share.shard.world}, by expert {share.by_expert}"
    yield from (f"{name}: {getattr(options, name)}" for name in _VALUES)
    for weight in plan.weights:
        for part in weight.parts:
            yield f"{part.path} {part.shape} {part.scheme} of {part.source.name} {part.source.scheme}"


def _contents(options: LoadOptions, checkpoint: Checkpoint, folder: Path) -> Iterator[str]:
    """What was read: the weights, and what says how they are quantized."""
    known = Digests(folder / "digests.json")
    for name in _FILES:
        path = getattr(options, name)
        if path is not None:
            yield f"{name}: {known.of(Path(path))}"
    files = {tensor.file.path for tensor in checkpoint.tensors.values() if isinstance(tensor, MappedTensor)}
    yield from (known.of(path) for path in sorted(files))
    for tensor in checkpoint.tensors.values():
        if not isinstance(tensor, MappedTensor):
            content = tensor.read().contiguous().flatten()
            yield f"{tensor.name}: {blake2b(content.view(torch.uint8).numpy().data, digest_size=32).hexdigest()}"
