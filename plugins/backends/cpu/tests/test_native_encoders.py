# SPDX-License-Identifier: Apache-2.0
"""Native packing against the types' own: the same bytes, whatever the instruction set, dtype and importances."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch import Tensor

from tramontane.plugins import Plugins
from tramontane.quantization import Pack, Quantizer
from tramontane.quantization.encoders import quickened
from tramontane.records import resolve
from tramontane.testing.hard_rows import hard_rows
from tramontane_backend_cpu.encode import offer

GGML = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2k", "q3k", "q4k", "q5k", "q6k", "iq4_nl", "iq4_xs")
CORE = ("afq2", "afq3", "afq4", "afq6", "afq8", "hqq4", "hqq8", "nf4", "fp4", "mxfp4")
FITTED = [name for name in GGML if name != "q8_0"]
ROWS, INPUTS = 67, 512  # no whole number of lanes


def rows() -> Tensor:
    values = hard_rows(ROWS, INPUTS)
    values[9] *= -0.0
    return values


def quantizer(plugins: Plugins, name: str) -> Quantizer:
    types = plugins.catalogs.quantizers
    if name not in types:
        pytest.skip(f"no installed plugin has {name}")
    spec = types.get(name)
    made: Quantizer = resolve(spec.make, spec)(spec.name)
    return made


def native(plugins: Plugins, name: str) -> tuple[Pack, Pack]:
    """A type's own packing, and the native one; the own is what the native hands on to, so it must not be used."""
    one = quantizer(plugins, name)

    def forbidden(weight: Tensor, importance: Tensor | None) -> dict[str, Tensor]:
        raise AssertionError("the native side refused")

    found = offer(evolve(one, pack=forbidden))
    assert found is not None
    return one.pack, found


def assert_same(own: Pack, found: Pack, weight: Tensor, importance: Tensor | None) -> None:
    expected, got = own(weight, importance), found(weight, importance)
    assert set(expected) == set(got)
    for name, one in expected.items():
        assert one.dtype == got[name].dtype
        different = one.contiguous().view(torch.uint8) != got[name].contiguous().view(torch.uint8)
        assert not different.any(), (name, different.nonzero()[:4])


@pytest.mark.parametrize("name", [*GGML, *CORE])
def test_bytes_are_those_of_the_type(name: str, isa: str, plugins: Plugins) -> None:
    own, found = native(plugins, name)
    assert_same(own, found, rows(), None)
    assert_same(own, found, rows().to(torch.bfloat16), None)


@pytest.mark.parametrize("name", FITTED)
def test_importances_count_as_in_the_type(name: str, isa: str, plugins: Plugins) -> None:
    own, found = native(plugins, name)
    importance = torch.rand(INPUTS, generator=torch.Generator().manual_seed(4)) * 4
    assert_same(own, found, rows(), importance)


@pytest.mark.parametrize("name", ["q4k", "q4_1", "afq3"])
def test_stacks_slices_and_half_floats(name: str, plugins: Plugins) -> None:
    own, found = native(plugins, name)
    weight = torch.randn(3, 21, 2 * INPUTS, generator=torch.Generator().manual_seed(1)).half()[..., INPUTS:]
    importance = torch.rand(3, 1, INPUTS, generator=torch.Generator().manual_seed(2))
    assert not weight.is_contiguous()
    assert_same(own, found, weight, importance)


def test_outliers_leave_the_same_error(plugins: Plugins) -> None:
    """Powers are computed in another way, so that single codes may differ."""
    own, found = native(plugins, "hqq4")
    weight = torch.randn(64, INPUTS, generator=torch.Generator().manual_seed(1)) * 40
    scheme = quantizer(plugins, "hqq4").scheme
    errors = [
        float((scheme.dequantize(pack(weight, None), (64, INPUTS)) - weight).abs().sum()) for pack in (own, found)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)


@pytest.mark.parametrize("name", [*GGML, *CORE])
def test_values_that_are_no_numbers_do_no_harm_to_their_neighbours(name: str, plugins: Plugins) -> None:
    _, found = native(plugins, name)
    weight = torch.randn(5, INPUTS, generator=torch.Generator().manual_seed(1))
    clean = found(weight, None)
    weight[1, 300], weight[2, 300] = float("nan"), float("inf")
    for field, spoiled in found(weight, None).items():
        half = spoiled.shape[1] // 2
        assert torch.equal(spoiled[[0, 3, 4]], clean[field][[0, 3, 4]])
        assert torch.equal(spoiled[:, :half], clean[field][:, :half])


def test_what_is_not_native_is_left_to_the_type(plugins: Plugins) -> None:
    assert offer(quantizer(plugins, "fp8")) is None
    one = quantizer(plugins, "afq4")
    ragged = torch.randn(4, 96)
    quick = offer(one)
    assert quick is not None
    assert torch.equal(quick(ragged, None)["weight"], one.pack(ragged, None)["weight"])
    assert torch.equal(quick(ragged.double()[:, :64], None)["scale"], one.pack(ragged[:, :64], None)["scale"])


def test_types_that_a_load_asks_for_are_packed_natively(plugins: Plugins) -> None:
    one = quantizer(plugins, "afq4")
    assert quickened(one, plugins.catalogs.encoders).pack is not one.pack
    rounded = quantizer(plugins, "fp8")
    assert quickened(rounded, plugins.catalogs.encoders).pack is rounded.pack
