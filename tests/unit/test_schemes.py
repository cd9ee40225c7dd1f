# SPDX-License-Identifier: Apache-2.0
"""Every scheme: shapes, packing, accuracy, slices, and bit-equality of the GGML types with their reference."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes import Act, Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.schemes.affine import Affine as AffineScheme
from tramontane.schemes.codebook import TABLES
from tramontane.schemes.ggml import CODECS
from tramontane.schemes.micro import E2M1, to_e2m1
from tramontane.schemes.packing import in_blocks, octets, pack, packed_size, unpack
from tramontane.tensors import indices

AFFINE = [
    Affine(bits=bits, group=group, zero=zero, act_order=act_order, scale_dtype=dtype)  # type: ignore[arg-type]
    for bits, group, zero, act_order, dtype in (
        (1, 16, "float", False, torch.float32),
        (2, 32, "offset", False, torch.bfloat16),
        (3, 32, "int", False, torch.float16),
        (4, 32, "int", True, torch.float16),
        (4, 128, "none", False, torch.float16),
        (5, 64, "offset", False, torch.float32),
        (6, 16, "float", False, torch.float16),
        (7, 8, "none", False, torch.float32),
        (8, 0, "none", False, torch.float32),
        (8, 64, "int", True, torch.bfloat16),
    )
]
DOWN = [Affine(bits=bits, group=8, group_axis="out", zero="float", scale_dtype=torch.float32) for bits in (3, 4, 8)]
SCHEMES: list[Scheme] = [
    Dense(torch.float32),
    Dense(torch.bfloat16),
    *AFFINE,
    *DOWN,
    Float8(),
    Float8("e5m2", "channel", scale_dtype=torch.bfloat16),
    Float8(granularity="block", block=(16, 32)),
    Float8(granularity="block", block=(1, 32), scale_dtype=torch.float8_e8m0fnu),
    Micro(),
    Micro("nvfp4", global_scale=True),
    Micro("mxfp4", 16, global_scale=True),
    Codebook(),
    Codebook("fp4", 32, scale_dtype=torch.float16),
    *(Ggml(name) for name, codec in CODECS.items() if codec.quantize),
    Affine(bits=4, act=Act("int8", "static", "tensor")),
]
#: Largest relative error (Frobenius norm) of a normal random matrix.
ERRORS = {"f32": 0, "bf16": 3e-3, "affine1": 1.2, "affine2": 0.4, "affine3": 0.2, "affine4": 0.13, "fp8": 0.06}


def describe(scheme: Scheme) -> str:
    return f"{scheme.name}-{getattr(scheme, 'zero', '')}-{scheme.act.kind}"


def weight(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(scheme: Scheme, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    fields = scheme.quantize(weight(shape))
    if scheme.act.scale == "static":
        fields["act_scale"] = torch.ones(shape[:-2])
    return fields


# --- all schemes alike -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 256), (32, 96), (3, 16, 64)], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES, ids=describe)
def test_packing_gives_the_declared_fields_and_unpacks_closely(scheme: Scheme, shape: tuple[int, ...]) -> None:
    fields = packed(scheme, shape)
    scheme.check(fields, shape, what="test")
    assert scheme.nbytes(shape) == sum(one.nbytes for one in fields.values())
    unpacked = scheme.dequantize(fields, shape)
    assert unpacked.dtype == torch.float32
    assert tuple(unpacked.shape) == shape
    error = (unpacked - weight(shape)).norm() / weight(shape).norm()
    bound = next((value for name, value in ERRORS.items() if scheme.name.startswith(name)), 0.14)
    assert error <= bound, scheme.name


@pytest.mark.parametrize("scheme", SCHEMES, ids=describe)
def test_experts_are_packed_one_by_one(scheme: Scheme) -> None:
    shape = (3, 16, 64)
    together = packed(scheme, shape)
    for number in range(3):
        alone = scheme.quantize(weight(shape)[number])
        assert all(torch.equal(together[name][number], one) for name, one in alone.items()), scheme.name


@pytest.mark.parametrize("scheme", SCHEMES, ids=describe)
def test_packing_what_was_unpacked_changes_nothing_more(scheme: Scheme) -> None:
    """A second round moves values by far less than the first: codes are found again."""
    shape = (16, 128)
    once = scheme.dequantize(packed(scheme, shape), shape)
    twice = scheme.dequantize({**packed(scheme, shape), **scheme.quantize(once)}, shape)
    first = (once - weight(shape)).norm()
    assert (twice - once).norm() <= 0.7 * first


@pytest.mark.parametrize("scheme", SCHEMES, ids=describe)
def test_zero_weights_unpack_to_zeros(scheme: Scheme) -> None:
    shape = (16, 128)
    fields = packed(scheme, shape) | scheme.quantize(torch.zeros(shape))
    assert torch.equal(scheme.dequantize(fields, shape), torch.zeros(shape))


@st.composite
def cases(draw: Any) -> tuple[Scheme, tuple[int, ...], str, tuple[tuple[int, int], ...]]:
    scheme = draw(st.sampled_from(SCHEMES))
    experts = draw(st.sampled_from([(), (3,)]))
    shape = (*experts, draw(st.sampled_from([16, 48])), draw(st.sampled_from([128, 224, 256])))
    axis = draw(st.sampled_from(["expert", "out", "in"] if experts else ["out", "in"]))
    size = shape[("expert", "out", "in").index(axis) - 3]
    step = draw(st.sampled_from([1, 2, 8, 16, 32, 64, 128]))
    cuts = sorted({min(draw(st.integers(0, size // step)) * step, size) for _ in range(2)} | {size})
    found = [(a, b) for a, b in zip([0, *cuts], cuts, strict=False) if draw(st.booleans())]
    return scheme, shape, axis, tuple(found)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_slice_then_unpack_is_unpack_then_slice(case: Any) -> None:
    scheme, shape, axis, ranges = case
    fields = packed(scheme, shape)
    try:
        smaller, small = scheme.sliced(shape, {axis: ranges})
    except PlanError:
        with pytest.raises(PlanError, match=r"cannot be cut|not whole"):
            scheme.slice(fields, shape, axis, ranges)
        return
    cut = scheme.slice(fields, shape, axis, ranges)
    smaller.check(cut, small, what="slice")
    dim = len(shape) + ("expert", "out", "in").index(axis) - 3
    expected = scheme.dequantize(fields, shape).index_select(dim, indices(ranges))
    assert torch.equal(smaller.dequantize(cut, small), expected)


@pytest.mark.parametrize("worst", [-1, 4, 2**31 - 1])
def test_groups_that_are_not_there_are_found_before_a_kernel_looks(worst: int) -> None:
    scheme, shape = Affine(group=32, act_order=True), (8, 128)
    fields = scheme.quantize(weight(shape))
    scheme.check(fields, shape, what="w")
    fields["group_index"][5] = worst
    with pytest.raises(CheckpointError, match="but 4 groups"):
        scheme.check(fields, shape, what="w")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e4m3fn])
def test_scales_are_floats(dtype: torch.dtype) -> None:
    for scheme in (Affine, Codebook, Float8) if not dtype.is_floating_point else (Affine, Codebook):
        with pytest.raises(PlanError, match=str(dtype)):
            scheme(scale_dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 5), (5, 1), (1, 5), (0, 4), (4, 0), (2, 3, 4)], ids=str)
def test_bytes_of_words_however_they_lie(shape: tuple[int, ...]) -> None:
    words = torch.randint(-(2**31), 2**31, shape, dtype=torch.int32)
    for seen in (words, words.transpose(-1, -2)):
        expected = np.ascontiguousarray(seen.numpy()).view(np.uint8)
        assert torch.equal(octets(seen), torch.from_numpy(expected.reshape(*seen.shape[:-1], seen.shape[-1] * 4)))


@pytest.mark.parametrize(
    ("scheme", "axis", "cut", "message"),
    [
        (Ggml("q4_k"), "in", 128, "every 256"),
        (Ggml("q8_0"), "in", 48, "every 32"),
        (Affine(bits=4, group=128), "in", 64, "every 128"),
        (Affine(bits=3, group=0), "in", 12, "every 8"),
        (DOWN[0], "out", 3, "every 2"),
        (Float8(granularity="block", block=(128, 128)), "out", 64, "every 128"),
        (Micro(), "in", 16, "every 32"),
        (Codebook(), "in", 32, "every 64"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_cut_inside_a_block_is_refused_while_planning(scheme: Scheme, axis: str, cut: int, message: str) -> None:
    shape = (16, 512) if axis == "in" else (16, 512) if scheme in DOWN else (256, 512)
    with pytest.raises(PlanError, match=rf"{scheme.name} .*cannot be cut at {cut}.*{message}"):
        scheme.sliced(shape, {axis: ((0, cut),)})


def test_any_cut_works_along_axes_that_nothing_is_packed_along() -> None:
    for scheme in SCHEMES:
        if scheme in DOWN or isinstance(scheme, Float8):
            continue
        _, shape = scheme.sliced((7, 256), {"out": ((3, 4), (0, 1))})
        assert shape == (2, 256)


def test_a_scheme_cannot_be_sliced_into_wrong_scales() -> None:
    """Slices that keep the scales of the whole remember how many there are."""
    scheme = Affine(bits=4, group=32, act_order=True)
    smaller, shape = scheme.sliced((8, 128), {"in": ((0, 32),)})
    assert smaller.groups == 4
    assert smaller.fields(shape)["scale"].shape == (8, 4)
    assert Affine(group=32).sliced((8, 128), {"in": ((0, 32),)})[0].groups is None


@pytest.mark.parametrize("scheme", SCHEMES, ids=describe)
def test_gathered_rows_are_rows_of_the_whole(scheme: Scheme) -> None:
    shape, rows = (48, 128), torch.tensor([47, 0, 3, 3])
    fields = packed(scheme, shape)
    assert torch.equal(scheme.gather(fields, shape, rows), scheme.dequantize(fields, shape)[rows])


def test_no_rows_are_gathered_of_groups_along_the_outputs() -> None:
    found = DOWN[0].gather(packed(DOWN[0], (16, 64)), (16, 64), torch.tensor([], dtype=torch.int64))
    assert found.shape == (0, 64)


def test_schemes_compare_by_value_and_can_be_keys() -> None:
    assert Affine(bits=4) == Affine() != Affine(bits=3)
    assert len({Ggml("q4_0"), Ggml("Q4_0"), Ggml("q8_0"), Dense(), Micro(), Codebook(), Float8()}) == 6
    assert len({scheme.name for scheme in SCHEMES}) > 20
    with_act = Affine(act=Act("fp8"))
    assert with_act != Affine()
    assert with_act.plain() == Affine()


@pytest.mark.parametrize(
    ("scheme", "bits"),
    [(Dense(torch.bfloat16), 16), (Affine(), 4.125), (Affine(zero="int"), 4.1875), (Micro(), 4.25), (Codebook(), 4.5),
     (Ggml("q4_k"), 4.5), (Ggml("q6_k"), 6.5625), (Ggml("q8_0"), 8.5)],
    ids=lambda value: getattr(value, "name", str(value)),
)  # fmt: skip
def test_bits_per_weight(scheme: Scheme, bits: float) -> None:
    assert scheme.bits_per_weight((256, 4096)) == bits


def test_wrong_fields_are_all_named() -> None:
    scheme = Affine(zero="int")
    fields = scheme.quantize(weight((4, 256)))
    fields["scale"] = fields["scale"].float()
    fields["weight"] = fields["weight"][:2]
    del fields["zero"]
    fields["extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        scheme.check(fields, (4, 256), what="model.q_proj")
    for part in ("model.q_proj", "zero is missing", "extra is unexpected", "scale is", "weight is"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine(group=-1),
        lambda: Affine(group_axis="out", act_order=True),
        lambda: Affine(group_axis="out", group=3).fields((16, 16)),
        lambda: Dense(torch.int8),
        lambda: Float8(granularity="block"),
        lambda: Float8(block=(1, 1)),
        lambda: Micro(block=3),
        lambda: Codebook("nf5"),
        lambda: Codebook(block=1),
        lambda: Ggml("q9_z"),
        lambda: Ggml("q4_k").fields((4, 128)),
        lambda: Ggml("q4_k").quantize(torch.zeros(1, 256)),
        lambda: Act("int8", "static", "token"),
        lambda: Act("int8", per="group"),
    ],
)
def test_impossible_schemes_are_refused(make: Any) -> None:
    with pytest.raises(PlanError):
        make()


# --- packing ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_codes_come_back(bits: int, count: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (2, count), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    stored = pack(codes, bits)
    assert stored.shape == (2, packed_size(count, bits))
    assert torch.equal(unpack(stored, bits, count), codes)


def test_the_stream_starts_at_the_lowest_bit() -> None:
    assert pack(torch.tensor([[1, 2]], dtype=torch.uint8), 4).tolist() == [[0x21]]
    assert pack(torch.tensor([[1, 0, 0, 0, 0, 0, 0, 4]], dtype=torch.uint8), 3).tolist() == [[1, 0, 0x80]]
    assert in_blocks(torch.arange(3), 2).tolist() == [[0, 1], [2, 0]]


# --- single schemes against their definitions -------------------------------------------------------------------------


def test_affine_by_hand() -> None:
    codes = torch.tensor([[3, 0, 15, 8]], dtype=torch.uint8)
    fields = {"weight": pack(codes, 4), "scale": torch.tensor([[0.5, 2.0]]).half()}
    options: dict[str, Any] = {"group": 2}
    unpacked = AffineScheme(**options).dequantize(fields, (1, 4))
    assert unpacked.tolist() == [[-2.5, -4.0, 14.0, 0.0]]
    zero = {"zero": torch.tensor([[1, 10]], dtype=torch.uint8)}
    assert AffineScheme(zero="int", **options).dequantize(fields | zero, (1, 4)).tolist() == [[1.0, -0.5, 10.0, -4.0]]
    offset = {"offset": torch.tensor([[1.0, -1.0]]).half()}
    assert AffineScheme(zero="offset", **options).dequantize(fields | offset, (1, 4)).tolist() == [[2.5, 1, 29, 15]]


def test_activation_order_looks_groups_up() -> None:
    fields = {
        "weight": pack(torch.full((1, 4), 9, dtype=torch.uint8), 4),
        "scale": torch.tensor([[1.0, 10.0]]).half(),
        "group_index": torch.tensor([1, 0, 0, 1], dtype=torch.int32),
    }
    assert Affine(group=2, act_order=True).dequantize(fields, (1, 4)).tolist() == [[10, 1, 1, 10]]


def test_groups_along_the_outputs_are_those_of_hqq() -> None:
    """HQQ's axis 0 reshapes [O, I] to [group, -1] and gives every column of that a scale."""
    scheme = Affine(bits=8, group=4, group_axis="out", zero="float", scale_dtype=torch.float32)
    codes = torch.randint(0, 256, (8, 6), dtype=torch.uint8)
    scale, zero = torch.rand(2, 6), torch.rand(2, 6) * 255
    expected = ((codes.float().reshape(4, -1) - zero.reshape(1, -1)) * scale.reshape(1, -1)).reshape(8, 6)
    assert torch.equal(scheme.dequantize({"weight": codes, "scale": scale, "zero": zero}, (8, 6)), expected)


def test_float8_blocks_are_scaled_where_they_lie() -> None:
    scheme = Float8(granularity="block", block=(2, 3))
    scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    unpacked = scheme.dequantize({"weight": torch.ones(3, 4).to(torch.float8_e4m3fn), "scale": scale}, (3, 4))
    assert unpacked.tolist() == [[1, 1, 1, 2], [1, 1, 1, 2], [3, 3, 3, 4]]


def test_power_of_two_scales_never_overflow() -> None:
    scheme = Float8(granularity="block", block=(1, 4), scale_dtype=torch.float8_e8m0fnu)
    values = torch.tensor([[449.0, 1.0, -2.0, 0.5]])
    assert scheme.dequantize(scheme.quantize(values), (1, 4)).tolist() == [[448.0, 1.0, -2.0, 0.5]]


def test_e2m1_rounds_to_the_nearest_and_ties_to_even() -> None:
    values = torch.tensor([0.0, 0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 5.1, 99.0, -0.8, -0.0])
    codes = to_e2m1(values)
    signs = 1 - 2 * (codes >> 3).float()
    assert (torch.tensor(E2M1)[(codes & 7).long()] * signs).tolist() == [0, 0, 0.5, 1, 1, 2, 2, 4, 4, 6, 6, -1, 0]
    for code, value in enumerate(E2M1):
        assert to_e2m1(torch.tensor([value, -value])).tolist() == [code, code + 8]


def test_mxfp4_agrees_with_ggml() -> None:
    """GGML keeps the scale byte and 32 codes together, first half in the low bits, and doubles the values."""
    rng = np.random.default_rng(1)
    codes, exponents = rng.integers(0, 16, (4, 2, 32)), rng.integers(100, 150, (4, 2))
    blocks = np.concatenate([exponents[..., None], codes[..., :16] | codes[..., 16:] << 4], -1).astype(np.uint8)
    expected = gguf.dequantize(blocks.reshape(4, 34), gguf.GGMLQuantizationType.MXFP4)
    fields = {
        "weight": pack(torch.from_numpy(codes.reshape(4, 64)), 4),
        "scale": torch.from_numpy(exponents.astype(np.uint8)).view(torch.float8_e8m0fnu),
    }
    assert np.array_equal(Micro().dequantize(fields, (4, 64)).numpy(), expected)


@pytest.mark.parametrize("table", TABLES)
def test_codebooks_find_every_value_again(table: str) -> None:
    values = torch.tensor(TABLES[table]).repeat(4)[None]
    scheme = Codebook(table, block=64)
    assert torch.equal(scheme.dequantize(scheme.quantize(values * 3), (1, 64)), values * 3)
    nearest = (weight((8, 64)).div(4).clamp(-1, 1).unsqueeze(-1) - values[0, :16]).abs().amin(-1)
    unit = weight((8, 64)).div(4).clamp(-1, 1)
    unit[:, 0] = 1.0
    nearest[:, 0] = 0.0
    assert torch.allclose((scheme.dequantize(scheme.quantize(unit), (8, 64)) - unit).abs(), nearest, atol=1e-6)
