# SPDX-License-Identifier: Apache-2.0
"""Tokens drawn by Triton kernels are those that their numbers mean, in float64; rows of all paths in one step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from attrs import evolve
from cuda_kit import HERE
from graph_kit import CallRecorder
from torch import Tensor

from tramontane.sampler.drawing import draw_rows as draw_by_torch
from tramontane.sampler.select import Knobs, Part
from tramontane.sampler.state import Path
from tramontane_backend_cuda import drawing
from tramontane_backend_cuda.bench.draws import distance
from tramontane_backend_cuda.drawing import draw_rows
from tramontane_backend_cuda.graphs import GraphRecorder, Recorder

KINDS = ("flat", "peaked", "bfloat16", "tied", "equal", "masked", "far")
NEAR = 1e-5
WAYS = (Path.GREEDY, Path.FULL, Path.TOP_K, Path.TOP_P)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few logits are several parts of several tiles, and more candidates than are listed."""
    for name, value in (("CHUNK", 32), ("BUCKETS", 16), ("LIST", 32), ("TILE", 32)):
        monkeypatch.setattr(drawing, name, value)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(kind: str, rows: int, vocab: int, seed: int) -> Tensor:
    made = torch.randn(rows, vocab, generator=random(seed), device="cpu")
    made *= {"flat": 0.5, "peaked": 6.0, "equal": 0.0}.get(kind, 2.0)
    if kind == "bfloat16":
        made = made.bfloat16().float()
    elif kind == "tied":
        made = made.round()
    elif kind == "masked":
        made[:, torch.randperm(vocab, generator=random(seed), device="cpu")[: vocab // 2]] = -math.inf
    elif kind == "far":  # what masks of other programs leave, and one token before all others
        made[:, 1:] -= 20.0
        made[:, 2::3] = -3.4e38
    return made.to(HERE)


def asked(ways: Sequence[Path], vocab: int, seed: int, *, min_p: float = 0.0) -> tuple[Knobs, Tensor]:
    """Parameters of rows that go these ways, and random numbers."""
    rows, generator = len(ways), random(seed)
    real = torch.rand(4, rows, generator=generator, dtype=torch.float64, device="cpu")
    top_k_R = torch.randint(1, vocab + 1, (rows,), generator=generator, device="cpu")
    top_p_R = torch.where(real[3] < 0.2, 1.0, real[1] * 0.98 + 0.01)  # top-k goes without top-p, too
    columns = ((real[0] * 1.5 + 0.2).float(), top_k_R, top_p_R, torch.full((rows,), min_p, dtype=torch.float64))
    knobs = Knobs(*(one.to(HERE) for one in columns), int(top_k_R.max()), any_min_p=min_p > 0)
    path_R = torch.tensor([way.value for way in ways], device=HERE)
    parts = [Part(way, None, None if way is Path.GREEDY else knobs) for way in WAYS]
    return evolve(knobs, path_R=path_R, parts=parts), real[2].to(HERE)


def check(kind: str, vocab: int, seed: int, rows: int = 8, min_p: float = 0.0, near: float = NEAR) -> None:
    ways = [WAYS[row % 4] for row in range(rows)]
    logits_RV = logits_of(kind, rows, vocab, seed)
    knobs, uniform_R = asked(ways, vocab, seed, min_p=min_p)
    before = logits_RV.clone()
    tokens_R, peak_R = draw_rows(None, logits_RV, knobs, uniform_R)
    assert torch.equal(logits_RV, before)
    assert torch.equal(peak_R, logits_RV.amax(dim=1))
    assert distance(None, logits_RV, knobs, uniform_R, tokens_R) <= near


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", ["bfloat16", "masked"])
def test_rows_of_all_paths_draw_what_their_numbers_mean(kind: str) -> None:
    check(kind, 75, len(kind), rows=4, min_p=0.03 if kind == "bfloat16" else 0.0)


@pytest.mark.usefixtures("_small")
def test_a_row_draws_what_it_draws_alone_and_what_torch_draws() -> None:
    logits_RV = logits_of("tied", 4, 50, 3)
    knobs, uniform_R = asked(WAYS, 50, 3)
    together, peak_R = draw_rows(None, logits_RV, knobs, uniform_R)
    by_torch, largest_R = draw_by_torch(None, logits_RV, knobs, uniform_R)
    assert torch.equal(together, by_torch)
    assert torch.equal(peak_R, largest_R)
    for row, way in enumerate(WAYS):
        given = (None, None) if way is Path.GREEDY else (knobs.pick(torch.tensor([row])), uniform_R[row : row + 1])
        assert draw_rows(way, logits_RV[row : row + 1], *given)[0].tolist() == [together[row].item()]


@pytest.mark.usefixtures("_small")
def test_a_share_that_ends_between_two_candidates_keeps_just_those_before() -> None:
    """Eight equal logits, of which top-p 0.5 keeps the four lowest ids; a mask is on all others."""
    rows, kept = 8, [3, 5, 40, 41]
    logits_RV = torch.full((rows, 70), -math.inf)
    logits_RV[:, [*kept, 42, 60, 68, 69]] = 1.5
    knobs, _ = asked([Path.TOP_P, Path.TOP_K] * 4, 70, 0)
    knobs = evolve(knobs, top_p_R=torch.full((rows,), 0.5).double(), top_k_R=torch.full((rows,), 8))
    uniform_R = (torch.arange(rows).double() // 2 + 0.999) / 4
    tokens_R, _ = draw_rows(None, logits_RV, knobs, uniform_R)
    assert tokens_R.tolist() == [token for token in kept for _ in range(2)]


@pytest.mark.usefixtures("_small")
def test_rows_that_nothing_can_be_drawn_from_say_so_and_spoil_no_other() -> None:
    ways = [way for way in WAYS for _ in range(4)]
    logits_RV = logits_of("peaked", 16, 70, 1)
    logits_RV[1::4, 69], logits_RV[2::4], logits_RV[3::4, 5] = math.nan, -math.inf, math.inf
    logits_RV[3::4, 60] = math.inf
    knobs, uniform_R = asked(ways, 70, 1)
    tokens_R, peak_R = draw_rows(None, logits_RV, knobs, uniform_R)
    assert torch.isnan(peak_R[1::4]).all()
    assert peak_R[2::4].tolist() == [-math.inf] * 4
    assert ((tokens_R >= 0) & (tokens_R < 70)).all()
    assert set(tokens_R[3::4].tolist()) <= {5, 60}
    assert tokens_R[3].item() == 5
    sound = torch.arange(0, 16, 4)
    picked = evolve(knobs.pick(sound), path_R=knobs.path_R[sound], parts=knobs.parts)
    assert distance(None, logits_RV[sound], picked, uniform_R[sound], tokens_R[sound]) <= NEAR


@pytest.mark.usefixtures("_small")
def test_a_recorded_draw_waits_for_nobody_and_is_right_for_other_rows() -> None:
    logits_RV = logits_of("flat", 4, 20, 5)
    knobs, uniform_R = asked(WAYS, 20, 5)
    recorder: Recorder = CallRecorder() if HERE.type == "cpu" else GraphRecorder(HERE)
    if HERE.type == "cuda":
        draw_rows(None, logits_RV, knobs, uniform_R)  # kernels are compiled before they are recorded
    calls = recorder.record(lambda: draw_rows(None, logits_RV, knobs, uniform_R))
    calls.replay()
    other_RV = logits_of("tied", 4, 20, 6)
    other, numbers_R = asked(WAYS[::-1], 20, 6)
    expected = draw_rows(None, other_RV, other, numbers_R)
    for memory, value in (
        (logits_RV, other_RV), (uniform_R, numbers_R), (knobs.path_R, other.path_R),
        (knobs.temperature_R, other.temperature_R), (knobs.top_k_R, other.top_k_R), (knobs.top_p_R, other.top_p_R),
    ):  # fmt: skip
        memory.copy_(value)
    calls.replay()
    assert [one.tolist() for one in calls.results] == [one.tolist() for one in expected]


def test_what_the_kernels_do_not_read_torch_draws() -> None:
    knobs, uniform_R = asked(WAYS, 30, 2)
    logits_RV = logits_of("peaked", 4, 30, 2)
    expected_R, _ = draw_by_torch(None, logits_RV, knobs, uniform_R)
    assert torch.equal(draw_rows(None, logits_RV.t().contiguous().t(), knobs, uniform_R)[0], expected_R)
    for way in (None, Path.TOP_P):
        with pytest.raises(ValueError, match="need knobs"):
            draw_rows(way, logits_RV)


@pytest.mark.full
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", KINDS)
def test_many_vocabularies(kind: str) -> None:
    for seed, vocab in enumerate((2, 7, 31, 33, 129, 300)):
        check(kind, vocab, 10 * seed, rows=8, min_p=0.05 * (seed % 2))


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_vocabulary(kind: str) -> None:
    check(kind, 151_936, 1, near=3e-5)
