# SPDX-License-Identifier: Apache-2.0
"""Quantizing: llama.cpp's published bounds, the bytes of the ``gguf`` package, and of llama.cpp where it is there."""

from __future__ import annotations

import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes import Ggml
from tramontane.testing.hard_rows import hard_rows
from tramontane_quant_gguf.quantizers import CODECS, FITTED, QUANTIZERS, quantize

#: llama.cpp's tests/test-quantize-fns.cpp: root of the summed squared errors over the number of elements.
BOUNDS = {"q2_k": 0.0075, "q3_k": 0.0040, "tq1_0": 0.01, "tq2_0": 0.01, "mxfp4": 0.0030}
USUAL_BOUND = 0.002
#: Largest relative error of a row, root of squares.
LIMITS = {"q2_k": 0.36, "q3_k": 0.21, "q4_k": 0.1, "q5_k": 0.06, "q6_k": 0.03, "iq4_nl": 0.1, "iq4_xs": 0.1}
PACKAGE = ("f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0", "mxfp4")


def unpacked(packed: Tensor, kind: str, shape: tuple[int, ...]) -> Tensor:
    return Ggml(CODECS[kind]).dequantize({"weight": packed}, shape)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_errors_stay_within_the_published_bounds(kind: str) -> None:
    values = (0.1 + 2 * torch.cos(torch.arange(32 * 128, dtype=torch.float32))).reshape(1, -1)
    error = (unpacked(quantize(values, kind), kind, (1, 4096)) - values).square().sum().sqrt() / 4096
    assert error <= BOUNDS.get(kind, USUAL_BOUND)


@pytest.mark.parametrize("kind", PACKAGE)
def test_bytes_are_those_of_the_gguf_package(kind: str) -> None:
    values = hard_rows(64, 512)
    with np.errstate(all="ignore"):
        expected = gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[kind.upper()]).view(np.uint8)
    assert np.array_equal(quantize(values, kind).numpy(), expected)


@pytest.mark.parametrize("kind", LIMITS)
def test_more_bits_mean_less_error_and_every_bit_is_used(kind: str) -> None:
    values = hard_rows(64, 512)
    errors = (unpacked(quantize(values, kind), kind, (64, 512)) - values).square().sum(1)
    relative = (errors / values.square().sum(1).clamp(min=1e-30)).sqrt()
    limit = LIMITS[kind]
    ordinary = [row for row in range(64) if row not in (3,)]  # 1e-10 underflows in float16 factors
    assert (relative[ordinary] < limit).all(), relative
    codes = quantize(values[9:], kind)
    assert all((codes & (1 << bit)).any() for bit in range(8))


@pytest.mark.parametrize("kind", FITTED)
def test_importances_move_the_error_to_where_it_counts_less(kind: str) -> None:
    values = torch.randn(128, 512, generator=torch.Generator().manual_seed(1))
    importance = torch.logspace(-2, 2, 512)[torch.randperm(512, generator=torch.Generator().manual_seed(2))]

    def weighted(packed: Tensor) -> float:
        return float(((unpacked(packed, kind, (128, 512)) - values).square() * importance).sum())

    assert weighted(quantize(values, kind, importance)) < 0.9 * weighted(quantize(values, kind))


@pytest.mark.parametrize("kind", ["q8_0", "mxfp4"])
def test_importances_mean_nothing_where_values_are_rounded(kind: str) -> None:
    values = hard_rows(64, 512)
    assert torch.equal(quantize(values, kind, torch.rand(512)), quantize(values, kind))


@pytest.mark.parametrize("kind", ["q3_k", "q4_k", "q8_0", "q4_1", "iq4_xs"])
def test_stacks_and_pieces_give_the_bytes_of_single_matrices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(3, 40, 512, generator=torch.Generator().manual_seed(1))
    importance = torch.rand(3, 1, 512, generator=torch.Generator().manual_seed(2))
    stacked = quantize(values.to(torch.bfloat16), kind, importance)
    assert stacked.shape == (3, 40, 512 // CODECS[kind].block * CODECS[kind].nbytes)
    monkeypatch.setattr("tramontane_quant_gguf.quantizers.CHUNK", 512 * 7)
    singles = [quantize(values[i].to(torch.bfloat16), kind, importance[i, 0]) for i in range(3)]
    assert torch.equal(stacked, torch.stack(singles))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_values_that_are_no_numbers_do_no_harm_to_their_neighbours(kind: str) -> None:
    if kind in ("f32", "f16", "bf16"):
        pytest.skip("plain numbers have no neighbours")
    values = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    clean = quantize(values, kind)
    values[1, 300] = float("nan")
    values[2, 300] = float("inf")
    spoiled = quantize(values, kind)
    assert torch.equal(spoiled[0], clean[0])
    first = spoiled.shape[1] // 2
    assert torch.equal(spoiled[:, :first], clean[:, :first])


def test_a_codec_packs_by_itself() -> None:
    values = hard_rows(64, 512)
    scheme = Ggml(CODECS["q5_k"])
    assert torch.equal(scheme.quantize(values)["weight"], quantize(values, "q5_k"))
    assert scheme == Ggml("q5_k")


def test_what_cannot_be_packed_is_refused_with_the_numbers() -> None:
    with pytest.raises(PlanError, match="iq2_xs"):
        quantize(torch.zeros(2, 256), "iq2_xs")
    with pytest.raises(PlanError, match=r"48 inputs.*blocks of 32"):
        quantize(torch.zeros(2, 48), "q4_0")


@pytest.mark.full
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("kind", [kind for kind in QUANTIZERS if kind not in ("f32", "f16", "bf16")])
def test_llama_cpp_packs_the_same(kind: str, weighted: bool) -> None:
    if weighted and kind not in FITTED:
        pytest.skip("importances mean nothing for this type here")
    values, codec = hard_rows(64, 512), CODECS[kind]
    importance = torch.rand(512, generator=torch.Generator().manual_seed(4)) * 4 if weighted else None
    ours = quantize(values, kind, importance)
    theirs = torch.from_numpy(
        llama_cpp.quantize(values.numpy(), codec.id, ours.shape[1], None if importance is None else importance.numpy())
    )
    if kind not in LIMITS and not weighted:
        assert torch.equal(ours, theirs)
        return
    same = (ours.reshape(-1, codec.nbytes) == theirs.reshape(-1, codec.nbytes)).all(1).float().mean()
    assert same > 0.9, "only the order of sums may decide, in close cases"
    counts = torch.ones(512) if importance is None else importance
    errors = [((unpacked(packed, kind, (64, 512)) - values).square() * counts).sum(1) for packed in (ours, theirs)]
    unequal = values.amax(1) != values.amin(1)  # of equal values any code gives the same: the order of sums decides
    assert (errors[0] <= errors[1] * 1.02 + 1e-6 * values.square().sum(1))[unequal].all()
    assert errors[0].sum() <= errors[1].sum() * 1.002
