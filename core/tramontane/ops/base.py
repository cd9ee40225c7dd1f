# SPDX-License-Identifier: Apache-2.0
"""What an op is.

Everything between token ids and logits is an op of one table (``OPS``). An op is a frozen record: its fields are the
parameters that never change while the model runs, so that a kernel can be specialized on them once. It declares what it
reads (inputs, weights, fields of :class:`~tramontane.batch.Ctx`), the shapes of what it makes, and a slow, correct,
differentiable ``reference``. Backends bring kernels; this package knows none.

Rules: an op writes its outputs and, if ``effect`` is set, the cache; nothing else. No Python value derived from the
batch may be a field, and no output shape may depend on routing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx

Meta = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of one output."""

#: name -> op class. Filled by the modules of this package; a kernel names the op it implements by this name.
OPS: dict[str, type[Op]] = {}


@frozen
class Op:
    """Base of all ops. ``weights`` given to its methods are the bound storages, in the order of ``roles``."""

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]] = ()
    """What the weights are called: ``("weight", "bias")``."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Fields of the batch it looks at; an op that reads any must be called with ``ctx``."""
    on_device: ClassVar[bool] = False
    """Its reference is torch calls on the device alone: it asks for no number, so a graph can hold it."""
    effect: ClassVar[bool] = False
    """It writes the cache, so it is never removed or moved across another op with an effect on the same cache."""

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        """Shapes and dtypes of the outputs for these inputs."""
        raise NotImplementedError

    def matrix_inputs(self, weights: Sequence[Any], *inputs: Tensor) -> Iterator[tuple[int, int | None, Tensor]]:
        """The activations that meet each matrix: number of the weight, expert or ``None``, and rows [N, I].

        For statistics, never while a step is timed. Ops whose matrices are never quantized have none.
        """
        return iter(())

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        """The slow, correct version. Returns fresh tensors; never writes its inputs."""
        raise NotImplementedError


_OpClass = TypeVar("_OpClass", bound=type[Op])


def op(name: str) -> Callable[[_OpClass], _OpClass]:
    """Class decorator: enter an op into the table under ``name``."""

    def enter(cls: _OpClass) -> _OpClass:
        if name in OPS:
            raise ValueError(f"two ops are called {name!r}: {OPS[name].__qualname__} and {cls.__qualname__}")
        cls.name = name
        OPS[name] = cls
        return cls

    return enter
