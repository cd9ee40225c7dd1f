# SPDX-License-Identifier: Apache-2.0
"""Entries of the key-value cache: what each type keeps of a number, and how planes hold it."""

from __future__ import annotations

import pytest
import torch

from tramontane.cache.entries import decode, encode, entry_elements, entry_features, parse_cache_dtype
from tramontane.cache.planes import gather, make_planes, write
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.errors import ConfigError

WIDE = (torch.float32, torch.bfloat16, torch.float16)
NARROW = (torch.float8_e4m3fn, torch.int8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp8", torch.float8_e4m3fn), ("FP8", torch.float8_e4m3fn), ("int8", torch.int8), ("bf16", torch.bfloat16),
     ("float32", torch.float32), ("torch.float16", torch.float16)],
)  # fmt: skip
def test_names(name: str, dtype: torch.dtype) -> None:
    assert parse_cache_dtype(name) is dtype


@pytest.mark.parametrize("name", ["int4", "float64", "", "fp9", "uint8"])
def test_unknown_names_say_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cache_dtype(name)
    assert "fp8" in (caught.value.hint or "")
    assert "int8" in (caught.value.hint or "")


def test_int8_is_within_half_a_step_of_each_heads_own_largest() -> None:
    values = torch.randn(50, 3, 40) * torch.logspace(-6, 6, 50).view(-1, 1, 1)
    values[7] = 0
    back = decode(encode(values, torch.int8), torch.float32)
    assert ((back - values).abs() <= values.abs().amax(-1, keepdim=True) * (0.5001 / 127)).all()
    assert not back[7].any()


def test_fp8_is_within_half_a_step_of_each_number_and_never_overflows() -> None:
    values = torch.randn(1000) * 20
    back = decode(encode(values, torch.float8_e4m3fn), torch.float32)
    assert ((back - values).abs() <= (values.abs() / 16).clamp(min=2.0**-10)).all()
    far = encode(torch.tensor([1e30, -1e30, torch.inf]), torch.float8_e4m3fn)
    assert decode(far, torch.float32).tolist() == [448.0, -448.0, 448.0]


@pytest.mark.parametrize("dtype", WIDE)
def test_other_types_are_the_numbers_themselves(dtype: torch.dtype) -> None:
    values = torch.randn(4, 5)
    assert torch.equal(encode(values, dtype), values.to(dtype))
    assert torch.equal(decode(values.to(dtype), torch.float32), values.to(dtype).float())
    assert entry_elements(5, dtype) == 5


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16])
def test_narrow_entries_come_back_in_the_type_asked_for(dtype: torch.dtype, target: torch.dtype) -> None:
    entries = encode(torch.randn(2, 3, 16), dtype)
    assert entries.shape[-1] == entry_elements(16, dtype)
    assert entry_features(entries.shape[-1], dtype) == 16
    assert decode(entries, target).dtype is target
    assert decode(entries, target).shape == (2, 3, 16)


@pytest.mark.parametrize("dtype", [*WIDE, *NARROW])
@pytest.mark.parametrize("kind", [CacheKind.FULL, CacheKind.LATENT])
def test_planes_hold_what_is_written_and_their_pages_are_counted(dtype: torch.dtype, kind: CacheKind) -> None:
    heads = 1 if kind is CacheKind.LATENT else 3
    specs = {
        "a": CacheSpec(kind=kind, kv_heads=heads, head_dim=20, value_dim=None if heads == 1 else 12, dtype=dtype),
        "b": CacheSpec(kind=CacheKind.WINDOW, window=9, kv_heads=2, head_dim=36, value_dim=4, dtype=dtype),
    }
    layout = plan_layout(specs, 8)
    planes = make_planes(layout, 5, torch.device("cpu"))
    for name, spec in specs.items():
        each = planes[name]
        tokens = each[0].shape[1]
        held = sum(plane[0].numel() * plane.element_size() for plane in each)
        assert held == spec.bytes_per_token * tokens <= layout.page_bytes
        widths = [entry_features(plane.shape[-1], dtype) for plane in each]
        news = [torch.randn(4, spec.kv_heads, width) for width in widths]
        slots = torch.tensor([tokens, 2 * tokens + 3, tokens + 1, 4 * tokens - 1])
        write(each, slots, news)
        for plane, new in zip(each, news, strict=True):
            expected = decode(encode(new, dtype), torch.float32)
            assert torch.equal(gather(plane, slots).float(), expected.float())
