# SPDX-License-Identifier: Apache-2.0
"""Encoders take the place of a type's own packing by rule, device and priority; and the arithmetic that both state."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tramontane.quantization import Pack, Quantizer
from tramontane.quantization.columns import columns_of, root, rounded, total
from tramontane.quantization.encoders import quickened
from tramontane.quantization.plain import TYPES
from tramontane.records import EncoderSpec
from tramontane.schemes import Fields

MARK = torch.tensor([1])


def mark(weight: Tensor, importance: Tensor | None) -> Fields:
    return {"weight": MARK}


def fail(quantizer: Quantizer) -> Pack | None:
    raise AssertionError("nobody should be asked")


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[EncoderSpec]:
    """Three in the order of their priority: one knows nothing, one knows ``afq4``, one is too late for it."""
    module = ModuleType("made_up_encoders")
    module.__dict__.update(
        nothing=lambda quantizer: None, some=lambda quantizer: mark if quantizer.name == "afq4" else None, late=fail
    )
    monkeypatch.setitem(sys.modules, "made_up_encoders", module)
    return [
        EncoderSpec(name="a", offer="made_up_encoders:nothing", priority=9),
        EncoderSpec(name="b", offer="made_up_encoders:some", priority=8),
        EncoderSpec(name="c", offer="made_up_encoders:late", priority=7),
    ]


def test_the_first_that_knows_a_type_packs_it(specs: list[EncoderSpec]) -> None:
    made = quickened(TYPES["afq4"], specs)
    assert made == TYPES["afq4"]
    assert made.pack(torch.ones(2, 64), None)["weight"] is MARK


def test_weights_elsewhere_are_packed_by_the_type(specs: list[EncoderSpec]) -> None:
    made = quickened(TYPES["afq4"], specs)
    assert made.pack(torch.ones(2, 64, device="meta"), None)["weight"].shape == (2, 32)


def test_types_that_nobody_knows_or_that_name_no_rule_stay_as_they_are(specs: list[EncoderSpec]) -> None:
    assert quickened(TYPES["hqq4"], specs[:2]) is TYPES["hqq4"]
    nameless = Quantizer(name="mine", scheme=TYPES["afq4"].scheme, pack=TYPES["afq4"].pack)
    assert quickened(nameless, specs) is nameless


@pytest.mark.parametrize("count", [1, 4, 5, 7, 64])
def test_totals_add_halves(count: int) -> None:
    values = torch.randn(count, 3, dtype=torch.float64)
    torch.testing.assert_close(total(values), values.sum(0, keepdim=True))
    powers = torch.tensor([[2.0**24], [1.0], [-(2.0**24)], [1.0]])  # in order the first 1 would be lost
    assert total(powers).tolist() == [[2.0]]


def test_rounding_is_to_even_within_bounds() -> None:
    values = torch.tensor([0.5, 1.5, -0.5, 2.4999998, 1e30, -torch.inf, torch.nan])
    assert rounded(values, -3, 7).tolist() == [0, 2, 0, 2, 7, -3, -3]


def test_roots_are_the_nearest() -> None:
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 1e-3
    found = root(values)
    above, below = (torch.nextafter(found, torch.tensor(end)).double() for end in (torch.inf, 0.0))
    middles = [(found.double() + other) / 2 for other in (above, below)]  # whose squares are exact in float64
    assert (middles[0].square() >= values).all()
    assert (middles[1].square() <= values).all()


def test_no_zero_is_negative() -> None:
    assert torch.equal(
        columns_of(torch.tensor([-0.0, 1.0, 2.0, 3.0]), 2).signbit(), torch.zeros(2, 2, dtype=torch.bool)
    )
