# SPDX-License-Identifier: Apache-2.0
"""The sampler on an accelerator draws what it draws on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tramontane.requests import SamplingParams
from tramontane.sampler import Sampler

pytestmark = pytest.mark.gpu

DEVICE = "cuda"

ROWS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {},
    {"temperature": 1.7, "min_p": 0.05},
    {"top_k": 40, "top_p": 0.9, "logprobs": 5},
    {"top_p": 0.8},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"dry_multiplier": 0.8, "dry_sequence_breakers": (), "top_k": 30},
    {"logit_bias": {3: 4.0}, "min_tokens": 5, "stop_token_ids": [1, 2, 3]},
]


def drawn(device: str, vocab: int, steps: int) -> tuple[list[list[int]], list[Any]]:
    sampler = Sampler(vocab, device)
    keys = list(range(len(ROWS)))
    for key in keys:
        sampler.start(key, [5, 6, 7, 5, 6], SamplingParams(**ROWS[key]), seed=key)
    tokens, reports = [], []
    for step in range(steps):
        logits = torch.randn(len(ROWS), vocab, generator=torch.Generator().manual_seed(step)).mul(3).round(decimals=1)
        sampled = sampler.sample(logits.to(device), keys, [5 + step] * len(ROWS))
        tokens.append(sampled.tokens.tolist())
        reports.append(sampled.logprobs[3])
        assert not sampled.faults
    return tokens, reports


@pytest.mark.parametrize("vocab", [97, 32_000, 151_936])
def test_a_device_draws_what_the_host_draws(vocab: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    tokens, reports = drawn(DEVICE, vocab, 12)
    expected_tokens, expected_reports = drawn("cpu", vocab, 12)
    assert tokens == expected_tokens
    for report, expected in zip(reports, expected_reports, strict=True):
        assert report.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert (report.rank, [token for token, _ in report.top]) == (
            expected.rank,
            [token for token, _ in expected.top],
        )


def test_a_bad_row_on_a_device_is_reported() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for params in ROWS:
        sampler = Sampler(1000, DEVICE)
        for key in range(3):
            sampler.start(key, [0], SamplingParams(**params), seed=key)
        batch = torch.randn(3, 1000, device=DEVICE)
        batch[1, 17] = torch.nan
        assert list(sampler.sample(batch, [0, 1, 2], [1] * 3).faults) == [1]
