# SPDX-License-Identifier: Apache-2.0
"""Quantizing to GGML types, for files and in place.

:func:`quantize` packs rows of any number of matrices; :data:`QUANTIZERS` has a function per type. The plain types and
those of 32 elements round to nearest and are the core's own; K types (:mod:`.k_quants`) and tables (:mod:`.iq4`) are
fitted. Under importances those of 32 elements are fitted too (:mod:`.small`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from attrs import evolve
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.quantization.columns import root, total
from tramontane.schemes import BlockCodec
from tramontane_quant_gguf.codecs import CODECS as UNFITTED
from tramontane_quant_gguf.quantizers import iq4, k_quants, small

CHUNK = 2**15
"""Elements that are fitted at a time: a fit's dozen float32 copies of them then stay in the processor's cache."""


class Quantizer(Protocol):
    """Packs blocks of one type."""

    def __call__(self, values: Tensor, importance: Tensor | None = None) -> Tensor:
        """Pack blocks.

        Args:
            values: float32 [B, block].
            importance: How much an error of each element counts, float32 [B, block]; ignored by types that round.

        Returns:
            uint8 [B, nbytes].
        """
        ...


def _rounding(codec: BlockCodec, values: Tensor, importance: Tensor | None = None) -> Tensor:
    if codec.quantize is None:
        raise PlanError(f"nothing here packs {codec.name}")
    return codec.quantize(values)


_ALWAYS: Mapping[str, Quantizer] = MappingProxyType(
    {
        "q2_k": k_quants.quantize_q2_k,
        "q3_k": k_quants.quantize_q3_k,
        "q4_k": k_quants.quantize_q4_k,
        "q5_k": k_quants.quantize_q5_k,
        "q6_k": k_quants.quantize_q6_k,
        "iq4_nl": iq4.quantize_iq4_nl,
        "iq4_xs": iq4.quantize_iq4_xs,
    }
)
_UNDER_IMPORTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "q4_0": small.quantize_q4_0,
        "q4_1": small.quantize_q4_1,
        "q5_0": small.quantize_q5_0,
        "q5_1": small.quantize_q5_1,
    }
)
"""These weigh elements by importances and by the mean square of their row, as llama.cpp does; both come in one."""
FITTED = (*_ALWAYS, *_UNDER_IMPORTANCES)
"""Types for which importances count."""
QUANTIZERS: Mapping[str, Quantizer] = MappingProxyType(
    {**{name: partial(_rounding, codec) for name, codec in UNFITTED.items() if codec.quantize}, **_ALWAYS}
)
"""A function per type that can be packed."""
CODECS: Mapping[str, BlockCodec] = MappingProxyType(
    {name: evolve(codec, quantize=_ALWAYS[name]) if name in _ALWAYS else codec for name, codec in UNFITTED.items()}
)
"""All types, each that can be packed with its function: ``Ggml(CODECS["q4_k"]).quantize(weight)`` works."""


def quantize(values: Tensor, kind: str, importance: Tensor | None = None) -> Tensor:
    """Pack matrices, or stacks of them.

    Args:
        values: Floating point [.., I].
        kind: Name of the type: ``q4_k``.
        importance: Mean squared activation of each input, as llama.cpp's imatrix has them: any shape that broadcasts
            to ``values``, such as [I], or [X, 1, I] for experts.

    Returns:
        uint8 [.., I / block * nbytes], on the device of ``values``.

    Raises:
        PlanError: Nothing packs this type, or rows are not whole blocks.
    """
    codec = CODECS.get(kind)
    if kind not in QUANTIZERS or codec is None:
        raise PlanError(f"nothing here packs {kind!r} (it can be {', '.join(QUANTIZERS)})")
    inputs = values.shape[-1]
    if inputs % codec.block:
        raise PlanError(
            f"rows of {inputs} inputs are not whole {kind} blocks of {codec.block}",
            hint="a type with smaller blocks may fit: q8_0, q5_0, q4_0 have 32",
        )
    rows = values.reshape(-1, inputs)
    spread = None if importance is None or kind not in FITTED else importance.expand(values.shape).reshape(rows.shape)
    packed = torch.empty(len(rows), inputs // codec.block * codec.nbytes, dtype=torch.uint8, device=values.device)
    step = max(1, CHUNK // inputs)
    for start in range(0, len(rows), step):
        part = rows[start : start + step].to(torch.float32)
        counts = None if spread is None else spread[start : start + step].to(torch.float32)
        packed[start : start + step] = _packed(kind, part, counts, codec.block).reshape(-1, packed.shape[1])
    return packed.reshape(*values.shape[:-1], packed.shape[1])


def _packed(kind: str, rows: Tensor, importance: Tensor | None, block: int) -> Tensor:
    """Rows as blocks."""
    fitted = _UNDER_IMPORTANCES.get(kind)
    if fitted is None or importance is None:
        return QUANTIZERS[kind](rows.reshape(-1, block), None if importance is None else importance.reshape(-1, block))
    squares = rows * rows
    of_block = total(squares.reshape(-1, block).t()).reshape(len(rows), -1)
    mean = torch.zeros_like(of_block[:, :1])
    for column in of_block.split(1, -1):  # in an order that is stated, as all sums here
        mean += column
    weights = importance * root(mean / rows.shape[1] + squares)
    return fitted(rows.reshape(-1, block), weights.reshape(-1, block))
