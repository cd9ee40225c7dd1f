# SPDX-License-Identifier: Apache-2.0
"""The scripted model says its script to the token, whatever happens to its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tramontane_scripted.plugin
from attrs import evolve
from tokenizers import Tokenizer
from tramontane_scripted.checkpoint import Script, write_scripted

from tramontane.plugins import Plugins, installed
from tramontane.requests import FinishReason, SamplingParams
from tramontane.testing.harness import Harness
from tramontane_loader_demo.plugin import FOLDER as TOKENIZER

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
SUNNY = "It is sunny in Rome, so take a hat."
TREES = "Trees, trees and more trees. " * 6
WATER = "Water."
QUESTION = "How is the weather?<|im_end|><|im_start|>"
AGAIN = f"{QUESTION}{CALL}<|im_end|>sunny<|im_end|><|im_start|>"

EXPECTED = {
    QUESTION: CALL,
    AGAIN: SUNNY,
    f"{AGAIN}{SUNNY}<|im_end|>And now?<|im_end|><|im_start|>": SUNNY,
    "What is in the forest?<|im_end|><|im_start|>": TREES,
    "The forest, no, the garden!<|im_end|><|im_start|>": WATER,
    "The garden, no, the forest!<|im_end|><|im_start|>": TREES,
    "a long walk " * 60 + "<|im_start|>": CALL,
    "nobody asks": "",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = Script(replies=[CALL, SUNNY], topics={" forest": [TREES], " garden": [WATER]})
    return write_scripted(tmp_path_factory.mktemp("scripted"), TOKENIZER, script)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return installed().extended([tramontane_scripted.plugin], [])


@pytest.fixture(scope="module")
def engine(folder: Path, plugins: Plugins) -> Harness:
    return Harness.load(folder, plugins=plugins)


def said(engine: Harness, tokenizer: Tokenizer, prompts: Sequence[str], **options: bool) -> list[str]:
    """The answers, up to the end token, which must follow each of them for ever."""
    end = tokenizer.token_to_id("<|im_end|>")
    answers = []
    for ids in engine.greedy([tokenizer.encode(prompt).ids for prompt in prompts], 160, **options):
        length = ids.index(end)
        assert set(ids[length:]) == {end}
        answers.append(tokenizer.decode(ids[:length]))
    return answers


@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"backend": "reference"}, marks=pytest.mark.full),
        {"capture": False},
        {"max_batched_tokens": 16, "block_tokens": 4},
        pytest.param({"prefix_cache": False, "max_num_seqs": 2}, marks=pytest.mark.full),
        {"num_blocks": 40, "block_tokens": 16},
    ],
    ids=lambda how: " ".join(f"{key}={value}" for key, value in how.items()) or "plain",
)
def test_every_reply_is_said_alone_and_in_a_batch(folder: Path, plugins: Plugins, tokenizer: Tokenizer, how) -> None:  # type: ignore[no-untyped-def]
    engine = Harness.load(folder, plugins=plugins, **{"max_model_len": 512, **how})
    assert said(engine, tokenizer, list(EXPECTED)) == list(EXPECTED.values())
    for prompt, reply in list(EXPECTED.items())[:3]:
        assert said(engine, tokenizer, [prompt]) == [reply]


def test_overlapped_steps_say_the_same(engine: Harness, tokenizer: Tokenizer) -> None:
    assert said(engine, tokenizer, list(EXPECTED), overlap=True) == list(EXPECTED.values())


def test_the_end_token_ends_the_answer(engine: Harness, tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id("<|im_end|>")
    plain = engine.request(tokenizer.encode(QUESTION).ids, SamplingParams(max_tokens=100, temperature=0))
    request = evolve(plain, eos_token_ids=(end,))
    deltas = engine.run([request])[request.id]
    ids = [token for delta in deltas for token in delta.token_ids]
    assert tokenizer.decode(ids) == CALL
    assert ids[-1] == end
    assert deltas[-1].finish_reason is FinishReason.STOP


def test_sampling_cannot_leave_the_script(engine: Harness, tokenizer: Tokenizer) -> None:
    sampling = SamplingParams(max_tokens=100, temperature=1.0, seed=7, n=3)
    request = engine.request(tokenizer.encode(AGAIN).ids, sampling)
    spoken: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for delta in engine.run([request])[request.id]:
        spoken[delta.index] += delta.token_ids
    assert {tokenizer.decode(ids) for ids in spoken.values()} == {SUNNY}
