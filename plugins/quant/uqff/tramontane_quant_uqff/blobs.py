# SPDX-License-Identifier: Apache-2.0
"""Layers of versions 0.1 and 0.2: each a blob of bytes that describes itself, cut here into the tensors that later
versions store by name. Nothing is copied but the small numbers.

A blob is: version (``major << 16 | minor << 8 | patch``) as u32, kind as u8, then what its kind has. A tensor in it is:
bytes, element type, number of dimensions and the dimensions as u32, then the data. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from attrs import define, field

from tramontane.checkpoint import MappedFile, MappedTensor, MemoryTensor, TensorRef
from tramontane.checkpoint.safetensors import Entry
from tramontane.errors import CheckpointError
from tramontane_quant_uqff.codecs import CODECS
from tramontane_quant_uqff.names import DTYPES, NUMBERED, Kind

Shape = tuple[int, ...]
Fields = dict[str, TensorRef]

MAX_DIMENSIONS = 4


def layers_of(
    blobs: Mapping[int, tuple[MappedFile, Entry]], name: Callable[[Sequence[Shape]], Sequence[str]]
) -> dict[str, TensorRef]:
    """The tensors of all layers.

    Args:
        blobs: By number, from 0.
        name: Says the modules' names, in order, for the shapes of the layers.

    Raises:
        CheckpointError: A blob is damaged or of an unknown version or kind.
    """
    read = [_Blob(*blobs[number]) for number in range(len(blobs))]
    layers = [blob.fields() for blob in read]
    found: dict[str, TensorRef] = {}
    for module, fields in zip(name([blob.shape for blob in read]), layers, strict=True):
        for one, ref in fields.items():
            ref.name = f"{module}.{one}"
            found[ref.name] = ref
    return found


@define
class _Blob:
    """One blob, read from front to back."""

    file: MappedFile
    entry: Entry
    shape: Shape = field(default=(), init=False)
    """Logical, once the fields have been read."""
    _at: int = field(default=0, init=False)

    def fields(self) -> Fields:
        """The tensors of the layer by their fields' names in later versions; refs have no names yet."""
        if self.entry.dtype is not torch.uint8 or len(self.entry.shape) != 1:
            raise self.fault("is no string of bytes")
        version, kind = self.u32(), self.u8()
        if version >> 16 or (version >> 8) & 0xFF > NUMBERED[1]:
            said = f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"
            raise self.fault(f"is of version {said}; blobs of 0.1 and 0.2 are read")
        if kind not in _READERS:
            raise self.fault(f"is of the kind {kind}, which is not known")
        found = {"weight.format": _memory(kind, torch.uint8), **_READERS[Kind(kind)](self)}
        if self._at != self.entry.nbytes:
            raise self.fault(f"has {self.entry.nbytes - self._at} bytes that belong to nothing")
        return found

    def u8(self) -> int:
        """The next byte."""
        return self._take(1)[0]

    def u32(self) -> int:
        """The next number of four bytes."""
        value: int = struct.unpack("<I", self._take(4))[0]
        return value

    def scalar(self, dtype: torch.dtype) -> TensorRef:
        """The next number, as a tensor."""
        return MemoryTensor.of("", torch.frombuffer(bytearray(self._take(dtype.itemsize)), dtype=dtype).reshape(()))

    def sizes(self) -> Shape:
        """The next shape."""
        count = self.u32()
        if count > MAX_DIMENSIONS:
            raise self.fault(f"has a tensor of {count} dimensions")
        return tuple(self.u32() for _ in range(count))

    def tensor(self) -> TensorRef:
        """The next tensor."""
        nbytes, code, shape = self.u32(), self.u32(), self.sizes()
        dtype = DTYPES.get(code)
        if dtype is None:
            raise self.fault(f"has a tensor of the element type {code}, which is not known")
        if prod(shape) * dtype.itemsize != nbytes:
            raise self.fault(f"has a tensor {list(shape)} of {dtype} in {nbytes} bytes")
        return self.data(dtype, shape)

    def data(self, dtype: torch.dtype, shape: Shape) -> TensorRef:
        """The next bytes, as they lie in the file."""
        offset = self.entry.offset + self._skip(prod(shape) * dtype.itemsize)
        return MappedTensor(name="", dtype=dtype, shape=shape, file=self.file, offset=offset)

    def fault(self, what: str) -> CheckpointError:
        """An error about this blob."""
        return CheckpointError(f"{self.file.path}: layer {self.entry.name[:20]} {what}")

    def _take(self, nbytes: int) -> bytes:
        start = self.entry.offset + self._skip(nbytes)
        return bytes(self.file.tensor(start, torch.uint8, (nbytes,)).tolist())

    def _skip(self, nbytes: int) -> int:
        start, self._at = self._at, self._at + nbytes
        if self._at > self.entry.nbytes:
            raise self.fault(f"ends after {self.entry.nbytes} bytes, in the midst of what it holds")
        return start


def _memory(value: int | Sequence[int], dtype: torch.dtype) -> TensorRef:
    return MemoryTensor.of("", torch.tensor(value, dtype=dtype))


def _bias(blob: _Blob, has: int) -> Fields:
    return {"bias": blob.tensor()} if has else {}


def _ggml(blob: _Blob) -> Fields:
    nbytes, has_bias, code = blob.u32(), blob.u8(), blob.u32()
    blob.shape = blob.sizes()
    codec = CODECS.get(code)
    if codec is None or not blob.shape or prod(blob.shape) * codec.nbytes != nbytes * codec.block:
        raise blob.fault(f"of shape {list(blob.shape)} in GGML's type {code} cannot have {nbytes} bytes")
    return {
        "weight": blob.data(torch.uint8, (nbytes,)),
        "weight.dtype": _memory(code, torch.uint32),
        "weight.shape": _memory(blob.shape, torch.uint32),
        **_bias(blob, has_bias),
    }


def _unquant(blob: _Blob) -> Fields:
    has_bias, weight = blob.u8(), blob.tensor()
    blob.shape = tuple(weight.shape)
    return {"weight": weight, **_bias(blob, has_bias)}


def _hqq(blob: _Blob) -> Fields:
    has_bias = blob.u8()
    found = {name: blob.tensor() for name in ("weight", "weight.scales", "weight.zeros")}
    blob.shape = blob.sizes()
    found["weight.shape"] = _memory(blob.shape, torch.uint32)
    for name, dtype in (
        ("bits", torch.uint8),
        ("group_size", torch.uint32),
        ("axis", torch.uint8),
        ("optimization_steps", torch.uint32),
        ("round_zeros", torch.uint8),
        ("channel_wise", torch.uint8),
    ):
        found[f"weight.{name}"] = blob.scalar(dtype)
    return {**found, **_bias(blob, has_bias)}


def _fp8(blob: _Blob) -> Fields:
    has_bias, weight = blob.u8(), blob.tensor()
    blob.shape = tuple(weight.shape)
    names = ("dequant_w_scale", "dequant_x_scale", "quant_scale")
    scales = {f"weight.{name}": blob.scalar(torch.float32) for name in names}
    return {"weight": weight, **scales, "weight.dtype": blob.scalar(torch.uint32), **_bias(blob, has_bias)}


def _afq(blob: _Blob) -> Fields:
    has_bias = blob.u8()
    found = {name: blob.tensor() for name in ("weight", "weight.scales", "weight.biases")}
    bits, group = blob.scalar(torch.uint8), blob.scalar(torch.uint8)
    scales = tuple(found["weight.scales"].shape)
    blob.shape = (*scales[:-1], scales[-1] * int(group.read())) if scales else ()
    return {**found, "weight.bits": bits, "weight.group_size": group, **_bias(blob, has_bias)}


def _f8q8(blob: _Blob) -> Fields:
    has_bias, count = blob.u8(), blob.u32()
    blob.shape = blob.sizes()
    return {
        "weight": blob.data(torch.uint8, (count * 33,)),
        "weight.num_blocks": _memory(count, torch.uint32),
        "weight.shape": _memory(blob.shape, torch.uint32),
        **_bias(blob, has_bias),
    }


def _mxfp4(blob: _Blob) -> Fields:
    has_bias, weight, scales = blob.u8(), blob.tensor(), blob.tensor()
    blob.shape = (*weight.shape[:-1], weight.shape[-1] * 2) if weight.shape else ()
    return {"weight": weight, "weight.scales": scales, **_bias(blob, has_bias)}


_READERS: Mapping[Kind, Callable[[_Blob], Fields]] = {
    Kind.GGML: _ggml,
    Kind.UNQUANT: _unquant,
    Kind.HQQ: _hqq,
    Kind.FP8: _fp8,
    Kind.AFQ: _afq,
    Kind.F8Q8: _f8q8,
    Kind.MXFP4: _mxfp4,
}
