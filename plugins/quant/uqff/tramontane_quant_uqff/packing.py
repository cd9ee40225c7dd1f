# SPDX-License-Identifier: Apache-2.0
"""A matrix in its scheme as the layer that mistral.rs would have written: the inverse of
:mod:`tramontane_quant_uqff.kinds`. Sizes are known before anything is read.

Legend: X experts, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.export import Outgoing
from tramontane.saved.files import Slot
from tramontane.schemes import Affine, Dense, Fields, Float8, Ggml, Micro, Scheme
from tramontane.schemes.packing import unpack
from tramontane_quant_uqff.codecs import CODECS
from tramontane_quant_uqff.hqq import SLOTS, fold
from tramontane_quant_uqff.kinds import LARGEST_E4M3, Q8_BLOCK, Q8_BYTES
from tramontane_quant_uqff.names import E4M3, FORMAT, Kind
from tramontane_quant_uqff.quantizers import HQQ_GROUP

Shape = tuple[int, ...]
U8, U32, F32 = torch.uint8, torch.uint32, torch.float32

AFQ_BITS, AFQ_GROUPS = (2, 3, 4, 6, 8), (32, 64, 128)
STEPS = 10
"""What is said of HQQ's fitting, which no reader needs."""
_WIDE = {torch.float64: torch.float32}


@frozen
class Packed:
    """One layer on its way to a file.

    Attributes:
        kind: What it is.
        label: Its type in reports: ``q4k``.
        slots: Field -> type and shape.
        make: Gives the tensors by field.
    """

    kind: Kind
    label: str
    slots: Mapping[str, Slot]
    make: Callable[[], Mapping[str, Tensor]] = field(repr=False)


def packed_layer(tensor: Outgoing) -> Packed:
    """How a matrix is stored. One whose shape its type cannot hold in this format is stored as plain numbers.

    Raises:
        PlanError: The format has no words for the matrix's type.
    """
    shape, scheme = tensor.shape, tensor.scheme
    described = None if scheme is None else _describe(scheme, shape)
    if described is None:
        dtype = scheme.dtype if isinstance(scheme, Dense) else F32
        stored = _WIDE.get(dtype, dtype)
        found = _Described(Kind.UNQUANT, _label(stored), {"weight": Slot(stored, shape)}, {}, lambda fields: {})
        return Packed(found.kind, found.label, _slots(found), lambda: _plain(tensor, stored))
    return Packed(
        described.kind, described.label, _slots(described), lambda: _made(described, described.bring(tensor.packed()))
    )


@frozen
class _Described:
    kind: Kind
    label: str
    slots: Mapping[str, Slot]
    """Of what is read from the model."""
    said: Mapping[str, Tensor]
    """What describes it."""
    bring: Callable[[Fields], Mapping[str, Tensor]]


def _slots(one: _Described) -> dict[str, Slot]:
    said = {FORMAT: Slot(U8, ())} | {name: Slot(value.dtype, tuple(value.shape)) for name, value in one.said.items()}
    return {**one.slots, **said}


def _made(one: _Described, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, **one.said, FORMAT: torch.tensor(int(one.kind), dtype=U8)}


def _plain(tensor: Outgoing, dtype: torch.dtype) -> dict[str, Tensor]:
    return {"weight": tensor.dense().to(dtype), FORMAT: torch.tensor(int(Kind.UNQUANT), dtype=U8)}


def _label(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "f16"}.get(dtype, "f32")


def _numbers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=U32)


def _describe(scheme: Scheme, shape: Shape) -> _Described | None:
    """``None`` where plain numbers are stored."""
    match scheme:
        case Dense():
            return None
        case Ggml() if scheme.type.id in CODECS and CODECS[scheme.type.id] == scheme.type:
            return _ggml(scheme, shape)
        case Affine(group_axis="in", zero="offset", act_order=False, groups=None) if (
            scheme.bits in AFQ_BITS and scheme.group in AFQ_GROUPS
        ):
            return _afq(scheme, shape) if shape[-1] % scheme.group == 0 else None
        case Affine(group_axis="out", zero="float", group=64, groups=None) if scheme.bits in (4, 8) and len(shape) == 2:
            return _hqq(scheme, shape)
        case Affine(bits=8, group_axis="in", zero="none", group=32, act_order=False) if len(shape) == 2:
            return _f8q8(shape) if shape[-1] % Q8_BLOCK == 0 else None
        case Float8(fmt="e4m3", granularity="tensor") if len(shape) == 2:
            return _fp8(shape)
        case Micro(fmt="mxfp4", global_scale=False) if scheme.size == 32:
            return _mxfp4(shape) if shape[-1] % 32 == 0 else None
    raise PlanError(
        f"UQFF has no words for {'a stack of experts' if len(shape) == 3 else 'a matrix'} in {scheme.name}",
        hint="types that it holds: q2k to q6k, q4_0 to q8_0, afq2 to afq8, mxfp4; and but for experts hqq4, hqq8, fp8",
    )


def _ggml(scheme: Ggml, shape: Shape) -> _Described:
    codec = scheme.type
    nbytes = prod(shape) // codec.block * codec.nbytes
    said = {"weight.dtype": torch.tensor(codec.id, dtype=U32), "weight.shape": _numbers(shape)}
    label = codec.name.replace("_k", "k")
    return _Described(
        Kind.GGML, label, {"weight": Slot(U8, (nbytes,))}, said, lambda fields: {"weight": fields["weight"].flatten()}
    )


def _afq(scheme: Affine, shape: Shape) -> _Described:
    words, groups = shape[-1] * scheme.bits // 32, shape[-1] // scheme.group
    scales = Slot(F32, (*shape[:-1], groups))
    slots = {"weight": Slot(U32, (*shape[:-1], words)), "weight.scales": scales, "weight.biases": scales}
    said = {
        "weight.bits": torch.tensor(scheme.bits, dtype=U8),
        "weight.group_size": torch.tensor(scheme.group, dtype=U8),
    }

    def bring(fields: Fields) -> dict[str, Tensor]:
        return {
            "weight": fields["weight"].contiguous().view(U32),
            "weight.scales": fields["scale"].to(F32),
            "weight.biases": fields["offset"].to(F32),
        }

    return _Described(Kind.AFQ, f"afq{scheme.bits}", slots, said, bring)


def _hqq(scheme: Affine, shape: Shape) -> _Described:
    groups = prod(shape) // HQQ_GROUP
    scales = Slot(F32, (1, groups))
    slots = {
        "weight": Slot(U8, (HQQ_GROUP // SLOTS[scheme.bits], groups)),
        "weight.scales": scales,
        "weight.zeros": scales,
    }
    said = {
        "weight.shape": _numbers(shape),
        "weight.bits": torch.tensor(scheme.bits, dtype=U8),
        "weight.group_size": torch.tensor(HQQ_GROUP, dtype=U32),
        "weight.axis": torch.tensor(0, dtype=U8),
        "weight.optimization_steps": torch.tensor(STEPS, dtype=U32),
        "weight.round_zeros": torch.tensor(0, dtype=U8),
        "weight.channel_wise": torch.tensor(1, dtype=U8),
    }

    def bring(fields: Fields) -> dict[str, Tensor]:
        codes = unpack(fields["weight"], scheme.bits, shape[-1])
        return {
            "weight": fold(codes, scheme.bits, HQQ_GROUP),
            "weight.scales": fields["scale"].reshape(1, -1).to(F32),
            "weight.zeros": fields["zero"].reshape(1, -1).to(F32),
        }

    return _Described(Kind.HQQ, f"hqq{scheme.bits}", slots, said, bring)


def _fp8(shape: Shape) -> _Described:
    scalar = Slot(F32, ())
    names = ("weight.dequant_w_scale", "weight.dequant_x_scale", "weight.quant_scale")
    slots = {"weight": Slot(torch.float8_e4m3fn, shape), **dict.fromkeys(names, scalar)}

    def bring(fields: Fields) -> dict[str, Tensor]:
        scale = fields["scale"].reshape(()).to(F32)
        return {"weight": fields["weight"], **dict(zip(names, (scale, scale, 1 / scale), strict=True))}

    return _Described(Kind.FP8, "fp8", slots, {"weight.dtype": torch.tensor(E4M3, dtype=U32)}, bring)


def _f8q8(shape: Shape) -> _Described:
    count = prod(shape) // Q8_BLOCK
    said = {"weight.num_blocks": torch.tensor(count, dtype=U32), "weight.shape": _numbers(shape)}

    def bring(fields: Fields) -> dict[str, Tensor]:
        scale = fields["scale"].reshape(-1, 1).float() * LARGEST_E4M3
        stored = scale.to(torch.float8_e4m3fn)
        if not torch.allclose(stored.float(), scale):
            raise PlanError("8-bit codes whose scales are no e4m3 numbers cannot be written", hint="use the type f8q8")
        codes = (fields["weight"] ^ 0x80).reshape(-1, Q8_BLOCK)
        return {"weight": torch.cat([stored.view(U8), codes], -1).flatten()}

    return _Described(Kind.F8Q8, "f8q8", {"weight": Slot(U8, (count * Q8_BYTES,))}, said, bring)


def _mxfp4(shape: Shape) -> _Described:
    slots = {
        "weight": Slot(U8, (*shape[:-1], shape[-1] // 2)),
        "weight.scales": Slot(U8, (*shape[:-1], shape[-1] // 32)),
    }
    return _Described(
        Kind.MXFP4,
        "mxfp4",
        slots,
        {},
        lambda fields: {"weight": fields["weight"], "weight.scales": fields["scale"].view(U8)},
    )
