# SPDX-License-Identifier: Apache-2.0
"""One type that weights can be quantized to: the scheme, the function that packs, and what to take where it does not
fit. Legend: X experts, O outputs, I inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes import Fields, Scheme

Pack = Callable[[Tensor, "Tensor | None"], Fields]
"""``pack(weight [.., O, I], importance)``: canonical fields. The importance of each input's error is a float32 tensor
that broadcasts to the weight, such as [I], or ``None``; functions that only round ignore it."""

CHUNK = 2**16
"""Elements that are packed at a time: packing holds a dozen float32 copies of them for a moment."""


@frozen(kw_only=True)
class Quantizer:
    """A type that ``--quant`` may name. Types compare by name.

    Attributes:
        name: The name people type: ``q4k``.
        scheme: What a weight becomes.
        pack: How it becomes that.
        fallback: The type for shapes that this one cannot store; ``None`` leaves those weights as they are.
        sensitive: The type for embeddings and output heads, whose errors reach every token.
        weighs: Whether importances make a difference.
        rule: How ``pack`` chooses codes, for encoders (:class:`tramontane.records.EncoderSpec`) that do the same
            quicker: ``nearest`` is what ``scheme.quantize`` does, ``hqq`` :func:`tramontane.quantization.hqq.fit`;
            plugins may have names of their own. Empty where nobody else should pack.
    """

    name: str
    scheme: Scheme = field(eq=False)
    pack: Pack = field(eq=False, repr=False)
    fallback: str | None = field(default=None, eq=False)
    sensitive: str | None = field(default=None, eq=False)
    weighs: bool = field(default=False, eq=False)
    rule: str = field(default="", eq=False)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of that shape can be stored in this type."""
        try:
            self.scheme.fields(shape)
        except PlanError:
            return False
        return True


def by_rows(scheme: Scheme, rule: Callable[[Tensor], Fields] | None = None) -> Pack:
    """A rule applied to a few rows at a time, so that a large weight needs little memory beside its result.

    Args:
        scheme: What is made. Every field must have one entry per output (no scale of the whole matrix).
        rule: Packs a matrix [O, I]; the scheme's own by default.
    """
    packed = rule or scheme.quantize

    def pack(weight: Tensor, importance: Tensor | None) -> Fields:
        shape = tuple(weight.shape)
        wanted = scheme.fields(shape)
        found = {name: torch.empty(one.shape, dtype=one.dtype, device=weight.device) for name, one in wanted.items()}
        step = max(1, CHUNK // shape[-1])
        for matrix, index in _matrices(weight):
            for start in range(0, shape[-2], step):
                for name, rows in packed(matrix[start : start + step]).items():
                    found[name][index][start : start + step] = rows
        return found

    return pack


def _matrices(weight: Tensor) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Each matrix of a stack with its index in it; a lone matrix with the empty index."""
    return [(weight, ())] if weight.dim() == 2 else [(one, (i,)) for i, one in enumerate(weight)]
