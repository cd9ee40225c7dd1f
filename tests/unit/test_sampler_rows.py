# SPDX-License-Identifier: Apache-2.0
"""What a sampler reports of a row, refuses of a request and keeps between steps."""

from __future__ import annotations

import pytest
import torch

from tramontane.errors import RequestError
from tramontane.requests import SamplingParams
from tramontane.sampler import Sampler, prompt_logprobs

VOCAB = 97


def test_logprobs_are_those_of_the_models_own_distribution() -> None:
    sampler = Sampler(VOCAB)
    params = SamplingParams(temperature=0, logprobs=4, logit_bias={10: 100.0}, repetition_penalty=1.5)
    sampler.start("a", [1], params, seed=0)
    sampler.start("b", [1], SamplingParams(), seed=0)
    sampler.start("c", [1], SamplingParams(logprobs=0, top_k=2), seed=3)
    batch = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(5))
    expected = torch.log_softmax(batch.double(), dim=1)
    sampled = sampler.sample(batch.clone(), ["a", "b", "c"], [1, 1, 1])
    report = sampled.logprobs
    assert sorted(report) == [0, 2]
    assert report[0].token_id == 10
    assert report[0].logprob == pytest.approx(expected[0, 10].item(), abs=1e-5)
    assert report[0].rank == int((batch[0] > batch[0, 10]).sum()) + 1
    assert [token for token, _ in report[0].top] == batch[0].argsort(descending=True)[:4].tolist()
    assert [value for _, value in report[0].top] == pytest.approx(expected[0].sort(descending=True)[0][:4].tolist())
    assert report[2].top == ()
    assert report[2].token_id == sampled.tokens[2]


def test_logprobs_outlive_the_logits_buffer() -> None:
    sampler = Sampler(VOCAB)
    sampler.start("a", [1], SamplingParams(temperature=0, logprobs=2), seed=0)
    logits = torch.randn(1, VOCAB)
    expected = torch.log_softmax(logits, dim=1).max().item()
    sampled = sampler.sample(logits, ["a"], [1])
    logits.zero_()
    assert sampled.logprobs[0].logprob == pytest.approx(expected, abs=1e-5)


def test_prompt_logprobs() -> None:
    logits = torch.randn(4, VOCAB)
    before = logits.clone()
    found = prompt_logprobs(logits, [3, 1, 4, 1], 2)
    expected = torch.log_softmax(logits, dim=1)
    assert torch.equal(before, logits)
    for row, token in enumerate([3, 1, 4, 1]):
        assert found[row].token_id == token
        assert found[row].logprob == pytest.approx(expected[row, token].item(), abs=1e-5)
        assert found[row].rank == int((logits[row] > logits[row, token]).sum()) + 1
        assert len(found[row].top) == 2
    assert prompt_logprobs(logits[:0], [], 3) == []


def test_logits_wider_than_the_vocabulary_are_cut_off() -> None:
    sampler = Sampler(10)
    sampler.start("a", [1], SamplingParams(temperature=0, repetition_penalty=1.1, logprobs=1), seed=0)
    row = torch.arange(16.0)[None]
    sampled = sampler.sample(row, ["a"], [1])
    assert sampled.tokens.tolist() == [9]
    assert sampled.logprobs[0].logprob == pytest.approx(torch.log_softmax(torch.arange(10.0), 0)[9].item(), abs=1e-5)


def test_start_refuses_what_cannot_work() -> None:
    sampler = Sampler(10)
    with pytest.raises(RequestError, match="logit_bias holds token id 10; the vocabulary has ids 0 to 9"):
        sampler.start("a", [1], SamplingParams(logit_bias={10: 1.0}), seed=0)
    with pytest.raises(RequestError, match="the prompt holds token id 99"):
        sampler.start("a", [99], SamplingParams(presence_penalty=1.0), seed=0)
    with pytest.raises(RequestError, match="no tokens"):
        sampler.start("a", [], SamplingParams(), seed=0)
    with pytest.raises(RequestError, match="breakers need a tokenizer"):
        sampler.start("a", [1], SamplingParams(dry_multiplier=0.5), seed=0)
    sampler.start("a", [1], SamplingParams(), seed=0)
    with pytest.raises(RequestError, match="sampled already"):
        sampler.start("a", [1], SamplingParams(), seed=0)
    sampler.drop("a")
    sampler.drop("a")


def test_history_rows_are_reused_and_grow() -> None:
    sampler = Sampler(VOCAB)
    params = SamplingParams(temperature=0, repetition_penalty=1.2)
    for wave in range(3):
        keys = [(wave, i) for i in range(9)]
        for key in keys:
            sampler.start(key, [1] * (400 + 60 * key[1]), params, seed=0)
        for step in range(5):
            sampler.sample(torch.randn(9, VOCAB), keys, [500 + step] * 9)
        for key in keys:
            sampler.drop(key)
    assert len(sampler._history._lengths) == 0
    assert sampler._history._ids_SC.shape[0] <= 16
