# SPDX-License-Identifier: Apache-2.0
"""Layers on their way to a file of version 0.2: each becomes a blob that :mod:`tramontane_quant_uqff.blobs` would cut
into the tensors of later versions. Sizes are known before anything is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from attrs import frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.saved.files import Slot
from tramontane_quant_uqff.names import DTYPES, NUMBERED, Kind
from tramontane_quant_uqff.packing import Packed

LARGEST = 2**32 - 1
_CODES = {dtype: code for code, dtype in DTYPES.items()}
PIECES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.GGML: "size:weight bias scalar:dtype sizes:shape raw:weight",
        Kind.UNQUANT: "bias tensor:weight",
        Kind.HQQ: (
            "bias tensor:weight tensor:scales tensor:zeros sizes:shape scalar:bits scalar:group_size scalar:axis "
            "scalar:optimization_steps scalar:round_zeros scalar:channel_wise"
        ),
        Kind.FP8: ("bias tensor:weight scalar:dequant_w_scale scalar:dequant_x_scale scalar:quant_scale scalar:dtype"),
        Kind.AFQ: "bias tensor:weight tensor:scales tensor:biases scalar:bits scalar:group_size",
        Kind.F8Q8: "bias scalar:num_blocks sizes:shape raw:weight",
        Kind.MXFP4: "bias tensor:weight tensor:scales",
    }
)
"""Kind -> what follows the version and the kind: whether a bias comes last (``bias``), how many bytes a field has
(``size``), its bytes (``raw``), its bytes after their number, type and shape (``tensor``), a list of sizes (``sizes``),
a single number (``scalar``)."""


@frozen
class Blob:
    """One layer as bytes that are to come."""

    nbytes: int
    make: Callable[[], Tensor]


def blob_of(name: str, weight: Packed, bias: Slot | None, read_bias: Callable[[], Tensor] | None) -> Blob:
    """A layer as a blob.

    Raises:
        PlanError: A tensor is too large for the numbers of the format, or of a type that it has no number for.
    """
    slots = dict(weight.slots) if bias is None else {**weight.slots, "bias": bias}
    pieces = [_piece(one) for one in PIECES[weight.kind].split()]
    if bias is not None:
        pieces.append(("tensor", "bias"))
    for field, slot in slots.items():
        if slot.nbytes > LARGEST or slot.dtype not in _CODES:
            raise PlanError(f"{name}.{field}, {list(slot.shape)} of {slot.dtype}, is no tensor that UQFF 0.2 can hold")
    nbytes = 5 + sum(_size(piece, slots.get(field)) for piece, field in pieces)

    def make() -> Tensor:
        tensors = dict(weight.make())
        if read_bias is not None:
            tensors["bias"] = read_bias()
        major, minor, patch = NUMBERED
        head = struct.pack("<IB", major << 16 | minor << 8 | patch, int(weight.kind))
        parts = [_bytes(piece, tensors.get(field), has_bias=bias is not None) for piece, field in pieces]
        return torch.frombuffer(bytearray(b"".join((head, *parts))), dtype=torch.uint8)

    return Blob(nbytes, make)


def _piece(text: str) -> tuple[str, str]:
    """What it is, and the field that it is of; that a bias comes last is of no field."""
    piece, _, field = text.partition(":")
    return piece, field if field in ("", "weight") else f"weight.{field}"


def _size(piece: str, slot: Slot | None) -> int:
    if slot is None:
        return 1
    described = {"tensor": 12 + 4 * len(slot.shape) + slot.nbytes, "sizes": 4 + slot.nbytes, "size": 4}
    return described.get(piece, slot.nbytes)


def _bytes(piece: str, tensor: Tensor | None, *, has_bias: bool) -> bytes:
    if tensor is None:
        return bytes([has_bias])
    raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    match piece:
        case "size":
            return struct.pack("<I", len(raw))
        case "tensor":
            shape = struct.pack(f"<{tensor.dim()}I", *tensor.shape)
            return struct.pack("<III", len(raw), _CODES[tensor.dtype], tensor.dim()) + shape + raw
        case "sizes":
            return struct.pack("<I", tensor.numel()) + raw
    return raw
