# SPDX-License-Identifier: Apache-2.0
"""GGML's types against the ``gguf`` package: unpacked bit for bit, packed byte for byte."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tramontane.schemes import BlockCodec, Ggml
from tramontane.schemes.ggml import CODECS


def blocks_of(codec: BlockCodec, kind: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if kind == "random":
        return np.random.default_rng(codec.id).integers(0, 256, (200, codec.nbytes), dtype=np.uint8)
    return np.full((2, codec.nbytes), {"zero": 0, "max": 255}[kind], dtype=np.uint8)


@pytest.mark.parametrize("kind", ["random", "zero", "max"])
@pytest.mark.parametrize("name", CODECS)
def test_ggml_types_unpack_bit_for_bit(name: str, kind: str) -> None:
    codec = CODECS[name]
    reference = gguf.GGMLQuantizationType[name.upper()]
    assert (codec.id, (codec.block, codec.nbytes)) == (reference, gguf.GGML_QUANT_SIZES[reference])
    blocks = blocks_of(codec, kind)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(blocks.copy(), reference)
    unpacked = Ggml(name).dequantize({"weight": torch.from_numpy(blocks)}, (len(blocks), codec.block)).numpy()
    assert np.array_equal(np.isnan(unpacked), np.isnan(expected))
    same = (unpacked.view(np.int32) == expected.view(np.int32)) | np.isnan(expected)
    assert same.all()


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if codec.quantize])
def test_ggml_types_pack_byte_for_byte(name: str) -> None:
    values = torch.randn((64, 256), generator=torch.Generator().manual_seed(3)) * 3
    values[0] = 0
    values[1, ::2], values[1, 1::2] = 2, -2  # both extremes of equal magnitude, in every order
    values[2, ::2], values[2, 1::2] = -2, 2
    values[3] = 7
    values[4] *= 1e-7
    values[5] *= 1e4
    values[6] = torch.linspace(-127, 127, 256)
    with np.errstate(all="ignore"):
        expected = gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[name.upper()]).view(np.uint8)
    assert np.array_equal(Ggml(name).quantize(values)["weight"].numpy(), expected)


def test_a_plugin_brings_a_type_by_making_a_codec() -> None:
    codec = BlockCodec("mine", 99, 4, 4, lambda blocks: blocks.to(torch.float32) * 2)
    scheme = Ggml(codec)
    assert (scheme.name, scheme.bits_per_weight((2, 8))) == ("mine", 8)
    assert scheme.dequantize({"weight": torch.ones(2, 8, dtype=torch.uint8)}, (2, 8)).tolist() == [[2.0] * 8] * 2
