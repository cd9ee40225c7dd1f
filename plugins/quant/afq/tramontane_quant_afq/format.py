# SPDX-License-Identifier: Apache-2.0
"""Where MLX keeps a matrix, and which scheme it is.

Codes of a row form one little-endian stream of bits in 32-bit words, which is the canonical packing of every scheme, so
that nothing is unpacked. Definition: MLX's ``quantize`` (https://ml-explore.github.io/mlx, "quantization modes").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.errors import PlanError
from tramontane.schemes import Affine, Fields, Float8, Micro, Scheme
from tramontane.schemes.packing import octets, packed_size
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_afq.settings import Settings, find_settings

Shape = tuple[int, ...]


@frozen
class AfqFormat:
    """The quantized weights of one checkpoint. A module is in the format if it has packed words and scales."""

    settings: Settings
    name: str = "afq"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: Fields are missing or of a type that is not supported.
        """
        weight, scales = lookup.stored("weight"), lookup.stored("scales")
        if weight is None or weight.dtype.is_floating_point:
            return None
        if scales is None:
            raise PlanError(f"{weight.name} is {weight.dtype}, but has no scales")
        if weight.dtype not in (torch.uint32, torch.int32):
            raise PlanError(f"{weight.name} is {weight.dtype}; weights that MLX packed into torch.uint32 are supported")
        layer = self.settings.of_module(weight.name.removesuffix(".weight"))
        scheme = scheme_of(layer, scales.dtype)
        if not isinstance(scheme, Affine) and scales.dtype is not torch.uint8:
            raise PlanError(f"{scales.name} is {scales.dtype}; {layer.mode} has scales of torch.uint8")
        return FormatPart(scheme, fields_of(layer, scheme), _CANONICAL[type(scheme)](scheme))


def scheme_of(layer: Settings, scale_dtype: torch.dtype) -> Scheme:
    """What a module's codes and scales are."""
    if layer.mode == "affine":
        return Affine(bits=layer.bits, group=layer.group_size, zero="offset", scale_dtype=scale_dtype)
    if layer.mode == "mxfp8":
        return Float8("e4m3", "block", (1, layer.group_size), scale_dtype=torch.float8_e8m0fnu)
    return Micro("mxfp4" if layer.mode == "mxfp4" else "nvfp4")


def fields_of(layer: Settings, scheme: Scheme) -> dict[str, TensorDecl]:
    """Where the logical axes lie in what is stored."""
    together = gcd(32, layer.bits)
    words = Axis(1, block=32 // together, width=layer.bits // together)
    groups = Axis(1, block=layer.group_size)
    found = {"weight": words, "scales": groups}
    if isinstance(scheme, Affine):
        found["biases"] = groups
    return {name: TensorDecl(name, {"out": Axis(0), "in": into}) for name, into in found.items()}


Canonical = Callable[[Mapping[str, Tensor], Shape], Fields]


def _affine(scheme: Affine) -> Canonical:
    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        codes = octets(tensors["weight"])[..., : packed_size(shape[-1], scheme.bits)]
        return {"weight": codes, "scale": tensors["scales"], "offset": tensors["biases"]}

    return canonical


def _micro(scheme: Micro) -> Canonical:
    dtype = torch.float8_e8m0fnu if scheme.fmt == "mxfp4" else torch.float8_e4m3fn

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        codes = octets(tensors["weight"])[..., : packed_size(shape[-1], 4)]
        return {"weight": codes, "scale": tensors["scales"].view(dtype)}

    return canonical


def _float8(scheme: Float8) -> Canonical:
    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        values = octets(tensors["weight"])[..., : shape[-1]].view(scheme.dtype)
        return {"weight": values, "scale": tensors["scales"].view(torch.float8_e8m0fnu)}

    return canonical


_CANONICAL: Mapping[type[Scheme], Callable[..., Canonical]] = {Affine: _affine, Micro: _micro, Float8: _float8}


class Format:
    """Finds checkpoints that MLX quantized."""

    def detect(self, checkpoint: Checkpoint) -> AfqFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        settings = find_settings(checkpoint)
        return None if settings is None else AfqFormat(settings)
