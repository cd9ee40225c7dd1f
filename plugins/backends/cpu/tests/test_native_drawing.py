# SPDX-License-Identifier: Apache-2.0
"""Tokens drawn natively are those that torch draws, on every instruction set and whatever the number of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tramontane.sampler.drawing import draw_rows as draw_by_torch
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane_backend_cpu.drawing import draw_rows
from tramontane_backend_cpu.library import choose_isa, pool, runnable_isas

ROWS = 24
KINDS = ("flat", "peaked", "bfloat16", "tied", "masked")


@pytest.fixture(params=["portable", "best"])
def _isa(request: pytest.FixtureRequest) -> Iterator[None]:
    choose_isa("portable" if request.param == "portable" else runnable_isas()[-1])
    yield
    choose_isa("")


def logits_of(kind: str, vocab: int, generator: torch.Generator) -> Tensor:
    made = torch.randn(ROWS, vocab, generator=generator) * {"flat": 0.5, "peaked": 6.0}.get(kind, 2.0)
    if kind == "bfloat16":
        return made.bfloat16().float()
    if kind == "tied":
        return made.round()
    if kind == "masked":
        made[:, torch.randperm(vocab, generator=generator)[: vocab // 2]] = -torch.inf
    return made


def knobs_of(vocab: int, min_p: float, generator: torch.Generator) -> Knobs:
    top_k_R = torch.randint(1, min(vocab, 900) + 1, (ROWS,), generator=generator)
    return Knobs(
        temperature_R=torch.rand(ROWS, generator=generator) * 1.5 + 0.2,
        top_k_R=top_k_R,
        top_p_R=torch.rand(ROWS, generator=generator, dtype=torch.float64) * 0.98 + 0.01,
        min_p_R=torch.full((ROWS,), min_p, dtype=torch.float64),
        most_k=int(top_k_R.max()),
        any_min_p=min_p > 0,
    )


@pytest.mark.usefixtures("_isa")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", list(Path))
def test_draws_are_those_of_torch(path: Path, kind: str) -> None:
    generator = torch.Generator().manual_seed(len(kind) * 10 + path.value)
    drawn = different = 0
    for vocab in (1, 7, 64, 65, 500, 4097, 9001):
        for min_p in (0.0, 0.05):
            logits_RV, knobs = logits_of(kind, vocab, generator), knobs_of(vocab, min_p, generator)
            if (logits_RV.amax(dim=1) == -torch.inf).any():
                continue  # a vocabulary of one, masked: nothing can be drawn
            before = logits_RV.clone()
            uniform_R = torch.rand(ROWS, generator=generator, dtype=torch.float64)
            asked = (None, None) if path is Path.GREEDY else (knobs, uniform_R)
            tokens, peaks = draw_by_torch(path, logits_RV, *asked)
            for threads in (1, 3):
                found, found_peaks = draw_rows(pool(threads), path, logits_RV, *asked)
                assert torch.equal(found_peaks, peaks)
                drawn, different = drawn + ROWS, different + int((found != tokens).sum())
            assert torch.equal(logits_RV, before)
    assert drawn > 300
    assert different <= drawn // 500, "sums are rounded otherwise, which a number in many thousands may tell"


@pytest.mark.usefixtures("_isa")
@pytest.mark.parametrize("path", list(Path))
def test_rows_that_nothing_can_be_drawn_from_say_so_and_spoil_no_other(path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    logits_RV, knobs = logits_of("peaked", 300, generator), knobs_of(300, 0.0, generator)
    logits_RV[3, 299], logits_RV[7] = math.nan, -math.inf
    logits_RV[11, 5] = math.inf
    asked = (None, None) if path is Path.GREEDY else (knobs, torch.full((ROWS,), 0.5, dtype=torch.float64))
    tokens, peaks = draw_rows(pool(2), path, logits_RV, *asked)
    expected, _ = draw_by_torch(path, logits_RV, *asked)
    assert math.isnan(peaks[3])
    assert peaks[[7, 11]].tolist() == [-math.inf, math.inf]
    assert tokens[11] == 5
    assert ((tokens >= 0) & (tokens < 300)).all()
    sound = [row for row in range(ROWS) if row not in (3, 7)]
    assert torch.equal(tokens[sound], expected[sound])


@pytest.mark.parametrize("path", [Path.FULL, Path.TOP_K, Path.TOP_P])
def test_numbers_run_through_the_candidates_in_order(path: Path) -> None:
    """The share of numbers that draw a token is the token's probability."""
    probabilities = torch.tensor([0.1, 0.4, 0.3, 0.2])
    count = 2000
    uniform_R = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    knobs = Knobs(
        temperature_R=torch.ones(count), top_k_R=torch.full((count,), 4), top_p_R=torch.full((count,), 0.95).double(),
        min_p_R=torch.zeros(count).double(), most_k=4, any_min_p=False,
    )  # fmt: skip
    logits_RV = probabilities.log().expand(count, 4).contiguous()
    tokens, _ = draw_rows(pool(1), path, logits_RV, knobs, uniform_R)
    shares = torch.bincount(tokens, minlength=4) / count
    assert torch.allclose(shares, probabilities, atol=1 / count), "0.95 of the mass needs all four"


@pytest.mark.full
@pytest.mark.usefixtures("_isa")
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_vocabulary(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    logits_RV, knobs = logits_of(kind, 151_936, generator), knobs_of(151_936, 0.0, generator)
    uniform_R = torch.rand(ROWS, generator=generator, dtype=torch.float64)
    for path in (Path.FULL, Path.TOP_K, Path.TOP_P):
        expected = draw_by_torch(path, logits_RV, knobs, uniform_R)
        found = draw_rows(pool(2), path, logits_RV, knobs, uniform_R)
        assert int((found[0] != expected[0]).sum()) <= 1
        assert torch.equal(found[1], expected[1])


def test_numbers_that_are_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="FULL need knobs"):
        draw_rows(pool(1), Path.FULL, torch.zeros(1, 4))
