# SPDX-License-Identifier: Apache-2.0
"""The machine code of decoders, which the interpreter never sees, instruction by instruction on the host.

Bytes of every value at every place go through :mod:`ptx`; whole layouts with scales of one are held against what the
schemes themselves say.
"""

from __future__ import annotations

import numpy as np
import ptx
import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import fields_of
from torch import Tensor

from tramontane.schemes import Affine, Float8, Ggml, Micro, Scheme
from tramontane_backend_cuda.codes import LANES
from tramontane_backend_cuda.decoders import Pieces
from tramontane_backend_cuda.forms import form_of
from tramontane_backend_cuda.pieces import ONES
from tramontane_backend_cuda.planes import Form

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

LAYOUTS: dict[str, Scheme] = {
    "4 bits": Affine(bits=4, group=128, zero="none"),
    "4 bits and a zero point": Affine(bits=4, group=64, zero="int"),
    "4 bits and an offset": Affine(bits=4, group=32, zero="offset"),
    "8 bits": Affine(bits=8, group=128, zero="none"),
    "q4_0": Ggml("q4_0"),
    "q4_k": Ggml("q4_k"),
    "q8_0": Ggml("q8_0"),
    "q6_k": Ggml("q6_k"),
    "fp8": Float8(granularity="channel"),
    "mxfp4": Micro("mxfp4"),
    "2 bits": Affine(bits=2, group=32, zero="offset"),
    "1 bit": Affine(bits=1, group=64, zero="offset"),
    "q5_0": Ggml("q5_0"),
    "3 bits": Affine(bits=3, group=64, zero="offset"),
    "6 bits": Affine(bits=6, group=128, zero="offset"),
}


def with_scales_of_one(scheme: Scheme, outputs: int, inputs: int) -> dict[str, Tensor]:
    """Fields of any codes."""
    fields = dict(fields_of(scheme, outputs, inputs, seed=3))
    for name, one in fields.items():
        if name == "weight" and not isinstance(scheme, Ggml):
            random = torch.randint(0, 256, one.shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)
            if isinstance(scheme, Float8):
                random = torch.where(random & 0x7F == 0x7F, random & 0x80, random)  # no NaN is ever stored
            fields[name] = random.view(one.dtype).view(one.shape)
        elif name == "scale":
            fields[name] = torch.ones(one.shape).to(one.dtype)
        elif name in ("zero", "offset"):
            fields[name] = torch.zeros_like(one)
    if isinstance(scheme, Ggml):
        blocks = fields["weight"].view(-1, scheme.type.nbytes)
        one_half = torch.ones(1, dtype=torch.float16).view(torch.uint8)
        if scheme.name == "q4_k":
            blocks[:, :2], blocks[:, 2:4] = one_half, 0
            blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16] = 1, 0, 1  # scales of 1, minima of 0
        elif scheme.name == "q6_k":
            blocks[:, 192:208], blocks[:, 208:] = 1, one_half
        else:
            blocks[:, :2] = one_half
    return fields


def code_of(pieces: Pieces, j: int, bits: int) -> str:
    """The machine code for the codes ``j`` of bytes, as the kernels complete it."""
    return pieces.decoder.replace("SHIFT", str(j * bits % 8)).replace(
        "MASK", f"{0x01010101 * (2 ** min(bits, 4) - 1):#x}"
    )


def by_decoder(form: Form, pieces: Pieces, fields: dict[str, Tensor], inputs: int) -> np.ndarray:
    """Weights [O, I] by the machine code, put where the kernels look for them."""
    planes = {name: one.contiguous().view(torch.uint8).numpy() for name, one in form.planes(fields).items()}
    codes, (low, high), split = planes["codes"], (form.packing.low, form.packing.high), form.packing.split
    made = np.full((codes.shape[0], codes.shape[1] * split), np.nan)
    byte = np.arange(codes.shape[1])
    for j in range(split):
        place = byte // LANES * (LANES * split) + j * LANES + byte % LANES
        made[:, place] = ptx.decoded(code_of(pieces, j, low), codes) + pieces.center
    if high:
        byte, each = np.arange(planes["high"].shape[1]), form.packing.high_bytes
        for q in range(8 // high):
            lane = q % split * LANES + q // split * each
            place = byte // each * (LANES * split) + lane + byte % each
            made[:, place] += (ptx.decoded(code_of(pieces, q, high), planes["high"]) + pieces.center) * 2**low
    made = made[:, :inputs]
    return made - form.middle if form.zero == "middle" else made


@pytest.mark.parametrize("tokens", ["one token", "several"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_machine_code_decodes_what_the_scheme_means(name: str, tokens: str) -> None:
    scheme, shape = LAYOUTS[name], (16, 512)
    form = form_of(scheme)
    assert form is not None
    pieces = (Pieces.of_one if tokens == "one token" else Pieces.of)(form, shape[1])
    if not pieces.size:  # a scale for a whole row; bits that are decoded to float32 for several tokens
        assert (tokens == "one token") is (name == "fp8")
        return
    assert pieces.decoder
    fields = with_scales_of_one(scheme, *shape)
    wanted = scheme.dequantize(fields, shape).double().numpy()
    assert len(np.unique(wanted)) >= min(15, 2**form.packing.low)
    assert np.array_equal(by_decoder(form, pieces, fields, shape[1]), wanted)


def decoders() -> dict[str, tuple[str, np.ndarray, int]]:
    """Each code with what its bytes mean, by their value, and how many numbers of a byte."""
    byte = np.arange(256)
    low, high = byte & 15, byte >> 4
    signed = np.where(byte < 128, byte, byte - 256)
    floats = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()
    small = np.array([*E2M1, *(-one for one in E2M1)])
    found = {}
    for name, meaning in (
        ("4 bits", [low + 128, high + 128]), ("8 bits", [byte - 128]), ("q8_0", [signed]), ("fp8", [floats]),
        ("mxfp4", [small[low], small[high]]), ("2 bits", [(byte >> s) % 4 + 128 for s in (0, 2, 4, 6)]),
        ("1 bit", [(byte >> s) % 2 + 128 for s in range(8)]),
    ):  # fmt: skip
        form = form_of(LAYOUTS[name])
        assert form is not None
        pieces = Pieces.of(form, 512) if name == "fp8" else Pieces.of_one(form, 512)
        found[name] = (pieces.decoder, np.stack(meaning), len(meaning))
    return found


@pytest.mark.parametrize("name", ["4 bits", "8 bits", "q8_0", "fp8", "mxfp4", "2 bits", "1 bit"])
def test_every_byte_at_every_place(name: str) -> None:
    code, meaning, count = decoders()[name]
    bits = 8 // count
    drawn = np.random.default_rng(0).integers(0, 256, (4, 256, 4), dtype=np.uint8)
    for place in range(4):
        drawn[place, :, place] = np.arange(256)
    for j in range(count):
        made, wanted = ptx.decoded(code_of(Pieces(16, 0, code), j, bits), drawn), meaning[j][drawn]
        real = np.isfinite(wanted)  # the codes of NaN are never stored
        assert np.array_equal(made[real], wanted[real])


def test_ones_are_ones() -> None:
    assert (ptx.decoded(ONES.value, np.zeros((3, 8), np.uint8)) == 1).all()


def test_a_wrong_decoder_is_found() -> None:
    """The emulator itself: a selector off by one byte, a register that is none, an instruction that is not known."""
    code, meaning, _ = decoders()["4 bits"]
    codes = np.arange(64, dtype=np.uint8).reshape(-1, 4)
    good = code_of(Pieces(16, 0, code), 0, 4)
    assert np.array_equal(ptx.decoded(good, codes), meaning[0][codes])
    assert not np.array_equal(ptx.decoded(good.replace("0x5140", "0x5141"), codes), meaning[0][codes])
    with pytest.raises(AssertionError, match="no register"):
        ptx.run(good.replace("prmt.b32 $0", "prmt.b32 q"), codes.view("<u4"))
    with pytest.raises(KeyError):
        ptx.run(good.replace("shr.u32", "shr.s32"), codes.view("<u4"))
