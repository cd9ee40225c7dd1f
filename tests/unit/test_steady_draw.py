# SPDX-License-Identifier: Apache-2.0
"""Draws at fixed addresses are the sampler's, whatever the mixture of rows; mixtures share a recipe where one may."""

from __future__ import annotations

import pytest
import torch

from tramontane.requests import SamplingParams
from tramontane.sampler import Sampler
from tramontane.sampler.drawing import draw_rows
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane.sampler.steady import SteadyDraw

VOCAB = 50
PARAMS = (
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.9),
    SamplingParams(temperature=1.2, top_k=7, top_p=0.9),
    SamplingParams(temperature=1.1, top_p=0.8, min_p=0.01),
)


@pytest.mark.parametrize("any_draw", [False, True])
@pytest.mark.parametrize("chosen", [(0,), (1,), (2, 2), (0, 3), (0, 1, 2, 3)])
def test_steady_draws_are_the_samplers(chosen: tuple[int, ...], any_draw: bool) -> None:
    sampler, steady = Sampler(VOCAB), SteadyDraw(6, VOCAB, torch.device("cpu"), draw_rows, any_draw)
    keys = list(range(len(chosen)))
    for key, which in zip(keys, chosen, strict=True):
        sampler.start(key, [1], PARAMS[which], seed=key + 3)
    logits_LV = torch.randn(len(keys), VOCAB + 2, generator=torch.Generator().manual_seed(1)) * 2
    plan = sampler.steady(keys)
    assert plan is not None
    recipe = steady.load(plan, [4] * len(keys))
    tokens_L, peak_L = steady.draw(logits_LV, recipe)
    sampled = sampler.sample(logits_LV, keys, [4] * len(keys))
    assert tokens_L.tolist() == sampled.tokens.tolist()
    assert torch.equal(peak_L, logits_LV[:, :VOCAB].amax(dim=1))
    if any_draw:
        assert recipe.paths == ({Path.GREEDY} if chosen == (0,) else set(Path))
    else:
        assert recipe.paths == {Path.of(PARAMS[which], VOCAB) for which in chosen}


def test_rows_of_several_paths_without_knobs_that_say_which_are_refused() -> None:
    column_R = torch.ones(2)
    knobs = Knobs(column_R, column_R.long(), column_R.double(), column_R.double(), 1, any_min_p=False)
    with pytest.raises(ValueError, match="which row takes which"):
        draw_rows(None, torch.zeros(2, VOCAB), knobs, column_R.double())
