# SPDX-License-Identifier: Apache-2.0
"""Every block type against the ``gguf`` package, bit for bit; those it cannot unpack against their definition."""

from __future__ import annotations

import struct
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tramontane.schemes import BlockCodec, Ggml
from tramontane_quant_gguf.codecs import BY_ID, CODECS, PLAIN, REMOVED

REFERENCE = {kind.name.lower(): kind for kind in gguf.GGMLQuantizationType}
WITHOUT_REFERENCE = ("q8_1", "q8_k", *PLAIN)
COMPARED = [name for name in CODECS if name not in WITHOUT_REFERENCE]
PACKED = ("tq1_0", "tq2_0", "mxfp4")
KINDS = ("random", "zero", "max", "nan scale", "infinite scale")


def blocks_of(codec: BlockCodec, kind: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocks of one kind. For the odd scales every 16-bit word that could be a scale is one, in some of the blocks."""
    if kind in ("zero", "max"):
        return np.full((2, codec.nbytes), {"zero": 0, "max": 255}[kind], dtype=np.uint8)
    count = 400 if kind == "random" else codec.nbytes
    blocks = np.random.default_rng(codec.id).integers(0, 256, (count, codec.nbytes), dtype=np.uint8)
    if kind != "random":
        word = struct.pack("<e", float("nan") if kind == "nan scale" else float("inf"))
        for at, block in enumerate(blocks):
            start = min(at, codec.nbytes - 2)
            block[start : start + 2] = list(word)
    return blocks


def unpack(codec: BlockCodec, blocks: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    fields = {"weight": torch.from_numpy(blocks)}
    return Ggml(codec).dequantize(fields, (len(blocks), codec.block)).numpy()


def test_every_type_of_the_format_is_here() -> None:
    known = set(BY_ID) | set(REMOVED)
    missing = {kind.name for kind in gguf.GGMLQuantizationType if kind not in known}
    assert missing <= {"Q1_0"}, missing  # newer than the release of the library that defines it
    for name, codec in CODECS.items():
        assert codec.id == REFERENCE[name]
        if name != "q8_1":  # the package says 40, which was the size of ggml's block until its scales became float16
            assert (codec.block, codec.nbytes) == gguf.GGML_QUANT_SIZES[REFERENCE[name]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMPARED)
def test_types_unpack_bit_for_bit(name: str, kind: str) -> None:
    codec = CODECS[name]
    blocks = blocks_of(codec, kind)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(blocks.copy(), REFERENCE[name])
    unpacked = unpack(codec, blocks)
    assert np.array_equal(np.isnan(unpacked), np.isnan(expected))
    assert ((unpacked.view(np.int32) == expected.view(np.int32)) | np.isnan(expected)).all()
    if kind == "random":
        assert len(np.unique(unpacked[np.isfinite(unpacked)])) > 1


def test_types_only_the_definition_describes() -> None:
    signed = np.arange(-128, 128, dtype=np.int8)
    q8_1 = bytearray(struct.pack("<ee", 0.5, 99.0) + signed[:32].tobytes())
    assert unpack(CODECS["q8_1"], np.frombuffer(q8_1, np.uint8)[None])[0].tolist() == (signed[:32] * 0.5).tolist()
    q8_k = bytearray(struct.pack("<f", 0.25) + signed.tobytes() + bytes(range(32)))
    assert unpack(CODECS["q8_k"], np.frombuffer(q8_k, np.uint8)[None])[0].tolist() == (signed * 0.25).tolist()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_numbers_are_themselves(name: str) -> None:
    values = torch.tensor([0, 1, -2, 100], dtype=PLAIN[name])
    raw = values.view(torch.uint8).reshape(4, -1).numpy()
    assert unpack(CODECS[name], raw).flatten().tolist() == [0, 1, -2, 100]


def hard_values() -> torch.Tensor:
    values = torch.randn(96, 256, generator=torch.Generator().manual_seed(3)) * 3
    values[0] = 0
    values[1, ::2], values[1, 1::2] = 2, -2
    values[2] = 7
    values[3] *= 1e-7
    values[4] *= 1e4
    values[5] = torch.linspace(-127, 127, 256)
    values[6] = torch.cat([torch.tensor([6.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]), -torch.ones(248)])
    return values


@pytest.mark.parametrize("name", PACKED)
def test_types_pack_byte_for_byte(name: str) -> None:
    values = hard_values()
    with np.errstate(all="ignore"):
        expected = gguf.quantize(values.numpy(), REFERENCE[name])
    assert np.array_equal(Ggml(CODECS[name]).quantize(values)["weight"].numpy(), expected)
