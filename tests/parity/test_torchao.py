# SPDX-License-Identifier: Apache-2.0
"""Schemes against torchao: what it packs unpacks to its numbers, and what is packed here is no worse than its own.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tramontane.quantization.plain import TYPES
from tramontane.schemes import Affine, Codebook, Float8, Micro
from tramontane.schemes.packing import pack

torchao = pytest.importorskip("torchao", reason="torchao is not installed")
primitives = pytest.importorskip("torchao.quantization.quant_primitives")
pytestmark = pytest.mark.full  # its import alone takes seconds

SHAPE = (48, 256)
EXACT = 1e-6


def weight() -> Tensor:
    """Normal values with a few outliers per row."""
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) * 0.05
    values[:, ::61] *= 8
    return values


def error(made: Tensor, power: float = 2.0) -> float:
    return (made - weight()).abs().pow(power).mean().item()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, SHAPE[1]])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_affine_codes(bits: int, group: int, symmetric: bool) -> None:
    block, top = (1, group), 2**bits - 1
    low = -(2 ** (bits - 1)) if symmetric else 0
    mapping = primitives.MappingType.SYMMETRIC if symmetric else primitives.MappingType.ASYMMETRIC
    stored = torch.int8 if symmetric else torch.uint8
    scale, zero = primitives.choose_qparams_affine(
        weight(), mapping, block, stored, low, low + top, scale_dtype=torch.float32
    )
    codes = primitives.quantize_affine(weight(), block, scale, zero, stored, low, low + top)
    theirs = primitives.dequantize_affine(codes, block, scale, zero, stored, low, low + top)
    scheme = Affine(bits=bits, group=group, zero="none" if symmetric else "int", scale_dtype=torch.float32)
    fields = {"weight": pack((codes.int() - low).to(torch.uint8), bits), "scale": scale.view(SHAPE[0], -1)}
    if not symmetric:
        fields["zero"] = zero.view(SHAPE[0], -1).to(torch.uint8)
    scheme.check(fields, SHAPE, what="torchao's weight")
    assert torch.allclose(scheme.dequantize(fields, SHAPE), theirs, rtol=EXACT, atol=1e-8)
    if bits == 8 or not symmetric:  # few symmetric codes: torchao clips the largest values, here they are kept
        assert error(scheme.dequantize(scheme.quantize(weight()), SHAPE)) <= 1.05 * error(theirs)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("fmt", ["e4m3", "e5m2"])
def test_eight_bit_floats(granularity: Any, fmt: Any) -> None:
    block = {"tensor": SHAPE, "channel": (1, SHAPE[1]), "block": (16, 64)}[granularity]
    scheme = Float8(fmt=fmt, granularity=granularity, block=block if granularity == "block" else None)
    scale = primitives._choose_scale_float8(weight(), list(block), scheme.dtype)
    codes = primitives._quantize_affine_float8(weight(), scale, scheme.dtype)
    theirs = primitives._dequantize_affine_float8(codes, scale)
    ours = scheme.quantize(weight())
    assert torch.allclose(ours["scale"], scale.reshape(ours["scale"].shape), rtol=EXACT)
    assert torch.equal(scheme.dequantize({"weight": codes, "scale": ours["scale"]}, SHAPE), theirs)
    assert torch.equal(ours["weight"].view(torch.uint8), codes.view(torch.uint8))


def test_microscaling() -> None:
    formats = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    made = formats.MXTensor.to_mx(weight(), torch.float4_e2m1fn_x2, 32)
    ours = Micro(fmt="mxfp4").quantize(weight())
    assert torch.equal(ours["weight"], made.qdata.view(torch.uint8))
    assert torch.equal(ours["scale"].view(torch.uint8), made.scale.view(torch.uint8).view(SHAPE[0], -1))
    fields = {"weight": made.qdata.view(torch.uint8), "scale": made.scale.view(SHAPE[0], -1)}
    assert torch.equal(Micro(fmt="mxfp4").dequantize(fields, SHAPE), made.dequantize(torch.float32))
    eight = formats.MXTensor.to_mx(weight(), torch.float8_e4m3fn, 32)
    scheme = Float8(granularity="block", block=(1, 32), scale_dtype=torch.float8_e8m0fnu)
    fields = {"weight": eight.qdata, "scale": eight.scale.view(SHAPE[0], -1)}
    assert torch.equal(scheme.dequantize(fields, SHAPE), eight.dequantize(torch.float32))


@pytest.mark.parametrize("factor", [False, True], ids=["blocks", "blocks and matrix"])
def test_nvidia_s_four_bits(factor: bool) -> None:
    formats = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    scale = formats.per_tensor_amax_to_scale(weight().abs().max()) if factor else None
    made = formats.NVFP4Tensor.to_nvfp4(weight(), per_tensor_scale=scale)
    scheme = Micro(fmt="nvfp4", global_scale=factor)
    fields = {"weight": made.qdata.view(torch.uint8), "scale": made.scale.view(SHAPE[0], -1)}
    if scale is not None:
        fields["global_scale"] = scale
    theirs = made.dequantize(torch.float32)
    assert torch.allclose(scheme.dequantize(fields, SHAPE), theirs, rtol=EXACT)
    ours = scheme.dequantize(scheme.quantize(weight()), SHAPE)
    assert error(ours) <= 1.02 * error(theirs)


def test_quantiles_of_normal_values() -> None:
    made = torchao.quantization.to_nf4(weight(), block_size=64, scaler_block_size=SHAPE[0] * SHAPE[1] // 64)
    scales = made.dequantize_scalers(made.quantized_scalers, made.quantization_factor, made.scaler_block_size)
    pairs = made.quantized_data.view(SHAPE[0], -1)
    fields = {"weight": pairs << 4 | pairs >> 4, "scale": scales.view(SHAPE[0], -1).float()}  # first in the high bits
    theirs = made.get_original_weight()
    scheme = Codebook(table="nf4")
    spread = fields["scale"].repeat_interleave(64, -1)
    assert ((scheme.dequantize(fields, SHAPE) - theirs).abs() <= 6e-5 * spread).all(), "its table has four decimals"
    assert error(scheme.dequantize(scheme.quantize(weight()), SHAPE)) <= error(theirs)


@pytest.mark.parametrize("kind", ["hqq4", "hqq8"])
def test_half_quadratic_zero_points(kind: str) -> None:
    """By the norm that both minimize."""
    made = TYPES[kind]
    assert isinstance(made.scheme, Affine)
    codes, scale, zero, _ = primitives._choose_qparams_and_quantize_affine_hqq(
        weight(), nbits=made.scheme.bits, group_size=made.scheme.group, axis=1, compute_dtype=torch.float32,
        device="cpu", raw_output=True,
    )  # fmt: skip
    scheme = Affine(bits=made.scheme.bits, group=made.scheme.group, zero="float", scale_dtype=torch.float32)
    theirs = scheme.dequantize({"weight": pack(codes, scheme.bits), "scale": scale, "zero": zero}, SHAPE)
    ours = made.scheme.dequantize(made.pack(weight(), None), SHAPE)
    assert error(ours, 0.7) <= 1.02 * error(theirs, 0.7)
