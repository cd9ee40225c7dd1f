# SPDX-License-Identifier: Apache-2.0
"""How each kind of layer lies in a file, and which scheme it is. Nothing is computed that a scheme can hold as it is.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, prod

import torch
from torch import Tensor

from tramontane.build.formats import ROWS, FormatPart
from tramontane.errors import CheckpointError
from tramontane.schemes import Affine, Dense, Fields, Float8, Ggml, Micro
from tramontane.schemes.ggml import BF16, F16, F32
from tramontane.schemes.packing import octets, packed_size
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_uqff.codecs import CODECS
from tramontane_quant_uqff.hqq import hqq_part
from tramontane_quant_uqff.layer import Layer, Shape
from tramontane_quant_uqff.names import FORMAT, Kind

PLAIN = {F32.id: torch.float32, F16.id: torch.float16, BF16.id: torch.bfloat16}
"""GGML's numbers of floating-point types, which need no blocks."""
Q8_BLOCK, Q8_BYTES = 32, 33
LARGEST_E4M3 = 416.0
"""What mistral.rs takes for the largest value of e4m3 (its float8 package does; the type itself ends at 448)."""


def part_of(layer: Layer) -> FormatPart:
    """How a layer becomes a part.

    Raises:
        CheckpointError: Its fields are missing, damaged or do not go together.
        PlanError: They say something that no scheme has.
    """
    number = layer.number(FORMAT, torch.uint8)
    if number not in _KINDS:
        raise CheckpointError(
            f"{layer.name} is a layer of the kind {number}; known are {', '.join(f'{k} ({k.name})' for k in Kind)}",
            hint="a newer version of tramontane-quant-uqff may know it",
        )
    return _KINDS[Kind(number)](layer)


def _same(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    return tensors


def _ggml(layer: Layer) -> FormatPart:
    """Blocks of GGML, row after row; floating point is such a type too."""
    layer.want(torch.uint8)
    code = layer.number("weight.dtype", torch.uint32)
    codec = CODECS.get(code)
    if codec is None:
        raise CheckpointError(f"{layer.name}.weight.dtype is {code}, which is no type that the format has")
    inputs = layer.stored_shape()[-1]
    known = (FORMAT, "weight.dtype", "weight.shape")
    row = -(-inputs // codec.block) * codec.nbytes
    into = Axis(1, block=codec.block, width=codec.nbytes)
    decl = TensorDecl("weight", {"out": Axis(0), "in": into}, view=(-1, row))
    plain = PLAIN.get(code)
    if plain is None:
        return FormatPart(Ggml(codec), {"weight": decl}, _same, known=known)

    def numbers(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        raw = tensors["weight"].contiguous()
        aligned = raw if raw.data_ptr() % plain.itemsize == 0 else raw.clone()
        return {"weight": aligned.view(plain)}

    return FormatPart(Dense(plain), {"weight": decl}, numbers, known=known)


def _unquant(layer: Layer) -> FormatPart:
    stored = layer.want(torch.float32, torch.float16, torch.bfloat16, torch.float64)
    return FormatPart(Dense(stored.dtype), {"weight": ROWS}, _same, known=(FORMAT,))


def _afq(layer: Layer) -> FormatPart:
    """MLX's packing, which is the canonical one, in words of 32 bits."""
    layer.want(torch.uint32, torch.int32)
    bits, group = (layer.number(f"weight.{one}", torch.uint8) for one in ("bits", "group_size"))
    if not 1 <= bits <= 8 or not group:
        raise CheckpointError(f"{layer.name} has codes of {bits} bits in groups of {group}")
    floats = (torch.float32, torch.float16, torch.bfloat16)
    scales, biases = (layer.want(*floats, field=f"weight.{one}") for one in ("scales", "biases"))
    if scales.dtype is not biases.dtype:
        raise CheckpointError(f"{scales.name} is {scales.dtype}, but {biases.name} {biases.dtype}")
    together = gcd(32, bits)
    axes = {"weight": Axis(1, block=32 // together, width=bits // together)}
    axes |= {name: Axis(1, block=group) for name in ("weight.scales", "weight.biases")}
    decls = {name: TensorDecl(name, {"out": Axis(0), "in": into}) for name, into in axes.items()}

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        codes = octets(tensors["weight"])[..., : packed_size(shape[-1], bits)]
        return {"weight": codes, "scale": tensors["weight.scales"], "offset": tensors["weight.biases"]}

    scheme = Affine(bits=bits, group=group, zero="offset", scale_dtype=scales.dtype)
    return FormatPart(scheme, decls, canonical, known=(FORMAT, "weight.bits", "weight.group_size"))


def _fp8(layer: Layer) -> FormatPart:
    """One scale for the matrix; those for activations are not used, as they are only the weight's again."""
    layer.single("FP8")
    layer.want(torch.float8_e4m3fn)
    scale = "weight.dequant_w_scale"
    if any(one.numel() != 1 for one in layer.lookup.values(scale)):
        raise CheckpointError(f"{layer.name}.{scale} is not one number")
    layer.want(torch.float32, field=scale)

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        return {"weight": tensors["weight"], "scale": tensors[scale].reshape(shape[:-2])}

    known = (FORMAT, "weight.dtype", "weight.dequant_x_scale", "weight.quant_scale")
    return FormatPart(Float8("e4m3", "tensor"), {"weight": ROWS, scale: TensorDecl(scale)}, canonical, known=known)


def _f8q8(layer: Layer) -> FormatPart:
    """Blocks of 32: the scale times :data:`LARGEST_E4M3` as e4m3, then int8 codes."""
    layer.single("F8Q8")
    layer.want(torch.uint8)
    _, inputs = layer.stored_shape()
    known = (FORMAT, "weight.num_blocks", "weight.shape")
    scheme = Affine(bits=8, group=Q8_BLOCK, scale_dtype=torch.float32)
    if inputs % Q8_BLOCK:  # blocks cross rows, so there is no scale per row and group
        return FormatPart(Dense(torch.float32), {"weight": TensorDecl("weight", sliceable=False)}, _whole, known=known)
    into = Axis(1, block=Q8_BLOCK, width=Q8_BYTES)
    decl = TensorDecl("weight", {"out": Axis(0), "in": into}, view=(-1, inputs // Q8_BLOCK * Q8_BYTES))

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        scale, codes = _q8_blocks(tensors["weight"])
        rows, groups = shape[:-1], -(-shape[-1] // Q8_BLOCK)  # a slice may end inside its last block
        weight = (codes.view(torch.uint8) ^ 0x80).reshape(*rows, groups * Q8_BLOCK)
        return {"weight": weight[..., : shape[-1]], "scale": scale.reshape(*rows, groups)}

    return FormatPart(scheme, {"weight": decl}, canonical, known=known)


def _q8_blocks(stored: Tensor) -> tuple[Tensor, Tensor]:
    """Scales float32 [n] and codes int8 [n, 32] of blocks back to back."""
    blocks = stored.reshape(-1, Q8_BYTES)
    scale = blocks[:, 0].contiguous().view(torch.float8_e4m3fn).float() / LARGEST_E4M3
    return scale, blocks[:, 1:].contiguous().view(torch.int8)


def _whole(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    """F8Q8 blocks that run through the whole matrix, as numbers."""
    each = tensors["weight"].reshape(*shape[:-2], -1)

    def matrix(stored: Tensor) -> Tensor:
        scale, codes = _q8_blocks(stored)
        return (codes.float() * scale.unsqueeze(-1)).flatten()[: prod(shape[-2:])].view(shape[-2:])

    return {"weight": matrix(each) if len(shape) == 2 else torch.stack([matrix(one) for one in each])}


def _mxfp4(layer: Layer) -> FormatPart:
    scheme, scales = Micro("mxfp4"), "weight.scales"
    layer.want(torch.uint8)
    layer.want(torch.uint8, torch.float8_e8m0fnu, field=scales)
    decls = {
        "weight": TensorDecl("weight", {"out": Axis(0), "in": Axis(1, block=2)}),
        scales: TensorDecl(scales, {"out": Axis(0), "in": Axis(1, block=scheme.size)}),
    }

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        return {"weight": tensors["weight"], "scale": tensors[scales].view(torch.float8_e8m0fnu)}

    return FormatPart(scheme, decls, canonical, known=(FORMAT,))


_KINDS: Mapping[Kind, Callable[[Layer], FormatPart]] = {
    Kind.GGML: _ggml,
    Kind.UNQUANT: _unquant,
    Kind.HQQ: hqq_part,
    Kind.FP8: _fp8,
    Kind.AFQ: _afq,
    Kind.F8Q8: _f8q8,
    Kind.MXFP4: _mxfp4,
}
