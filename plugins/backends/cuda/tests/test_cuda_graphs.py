# SPDX-License-Identifier: Apache-2.0
"""Steps as graphs, on the host: what is replayed is what runs eagerly, whatever the batch."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from graph_kit import FREE, PEAK, CallRecorder, CardLike, GraphedTorch
from torch import Tensor

from tramontane import hookimpl
from tramontane.backends.base import Padding
from tramontane.errors import OutOfMemoryError
from tramontane.load.budgeting import GRAPH_BYTES
from tramontane.plugins import Plugins, installed
from tramontane.records import BackendSpec
from tramontane.requests import SamplingParams
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane_backend_cuda.graphs import LARGEST, StepGraphs, sizes

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}  # fmt: skip
PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [11, 12], list(range(20, 61)), [70]]
SAMPLED = (
    SamplingParams(max_tokens=9, temperature=0, ignore_eos=True),
    SamplingParams(max_tokens=9, temperature=0.9, seed=1, ignore_eos=True),
    SamplingParams(max_tokens=9, temperature=1.2, top_k=7, min_p=0.02, seed=2, ignore_eos=True),
    SamplingParams(max_tokens=9, temperature=1.1, top_p=0.8, seed=3, ignore_eos=True),
)
"""One of every way to draw: their steps are mixtures."""


class Backends:
    """A late plugin with the test's backends."""

    @staticmethod
    @hookimpl
    def tramontane_backends() -> list[BackendSpec]:
        return [
            BackendSpec(name=name.lower(), backend=f"graph_kit:{name}", devices=("cpu",), priority=-9)
            for name in ("GraphedTorch", "EagerTorch", "CardLike", "TritonEnds")
        ]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return installed().extended([Backends()])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("graphs") / "model", CONFIG)


def harness(model: Path, plugins: Plugins, backend: str, **options: Any) -> Harness:
    return Harness.load(model, plugins=plugins, backend=backend, max_batched_tokens=24, max_num_seqs=6, **options)


def drawn(one: Harness, *, overlap: bool) -> list[list[int]]:
    """Tokens of every prompt with every way to draw, in a queue longer than the batch."""
    requests = [one.request(prompt, sampling) for prompt in PROMPTS for sampling in SAMPLED]
    found = one.run(requests, overlap=overlap)
    assert not [delta.error for deltas in found.values() for delta in deltas if delta.error]
    return [[token for delta in found[request.id] for token in delta.token_ids] for request in requests]


@pytest.mark.parametrize("overlap", [False, True])
def test_a_replayed_step_is_the_eager_one(model: Path, plugins: Plugins, overlap: bool) -> None:
    """Prompts in chunks beside decoding rows, all ways to draw, sequences that come and go."""
    eager = drawn(harness(model, plugins, "eagertorch"), overlap=False)
    graphed = harness(model, plugins, "graphedtorch")
    assert drawn(graphed, overlap=overlap) == eager
    graphs = graphed.loaded.runner.replays
    assert isinstance(graphs, StepGraphs)
    assert graphs.replayed > 10
    assert not graphs.refused
    before, kept = graphs.replayed, graphs.recorded
    assert drawn(graphed, overlap=overlap) == eager
    assert graphs.replayed - before > 2 * (graphs.recorded - kept), "most steps were met before"


def both_ends(model: Path, plugins: Plugins, prompts: list[list[int]], tokens: int) -> None:
    """Batches built and tokens drawn by kernels, recorded: two recordings for a size, and the tokens of eager steps."""
    pytest.importorskip("triton", reason="triton has packages for Linux only")
    if torch.get_default_device().type == "cuda":
        pytest.skip("kernels that run on a card are not for a model on the host")
    found = []
    for backend in ("eagertorch", "tritonends"):
        one = harness(model, plugins, backend)
        requests = [
            one.request(prompt, evolve(sampling, max_tokens=tokens)) for prompt in prompts for sampling in SAMPLED
        ]
        answers = one.run(requests, overlap=backend == "tritonends")
        found.append([[token for delta in answers[r.id] for token in delta.token_ids] for r in requests])
    assert found[0] == found[1]
    graphs = one.loaded.runner.replays
    assert isinstance(graphs, StepGraphs)
    assert graphs.replayed
    assert not graphs.refused
    assert graphs.recorded <= 2 * len(graphs.padding.tokens)


def test_both_ends_of_a_step_by_kernels(model: Path, plugins: Plugins) -> None:
    both_ends(model, plugins, PROMPTS[1:2], 4)


@pytest.mark.full
def test_both_ends_of_many_steps(model: Path, plugins: Plugins) -> None:
    both_ends(model, plugins, PROMPTS, 9)


def test_requests_that_want_more_than_tokens_run_beside_graphs(model: Path, plugins: Plugins) -> None:
    eager, graphed = (harness(model, plugins, name) for name in ("eagertorch", "graphedtorch"))
    assert graphed.greedy(PROMPTS, 6) == eager.greedy(PROMPTS, 6)
    assert np.allclose(graphed.logits(PROMPTS[2]), eager.logits(PROMPTS[2]), atol=1e-5)
    rich = SamplingParams(max_tokens=6, temperature=0, logprobs=2, repetition_penalty=1.3, ignore_eos=True)
    answers = []
    for one in (eager, graphed):
        requests = [one.request(prompt, rich) for prompt in PROMPTS]
        found = one.run(requests, overlap=one is graphed)
        answers.append([[(d.token_ids, [x.token_id for x in d.logprobs]) for d in found[r.id]] for r in requests])
    assert answers[0] == answers[1]


def test_the_largest_step_is_run_before_the_cache_gets_the_rest(model: Path, plugins: Plugins) -> None:
    one = harness(model, plugins, "cardlike", num_blocks=None)
    backend, memory = one.loaded.backend, one.loaded.memory
    assert isinstance(backend, CardLike)
    assert backend.measured == 2, "a prompt alone, and as many sequences as there may be"
    graphs = PEAK - 1 + GRAPH_BYTES * len(sizes(24))
    assert (memory.arena, memory.logits, memory.graphs) == (PEAK - 1, 0, graphs)
    useful = 6 * one.loaded.runner.cache_layout.blocks_for(256) + 1
    assert memory.blocks == useful, "there is more than all sequences could use"
    tight = harness(model, plugins, "cardlike", num_blocks=None, kv_memory=1 << 16)
    assert (1 << 15) < tight.loaded.memory.cache <= 1 << 16
    assert tight.greedy(PROMPTS[:1], 3) == one.greedy(PROMPTS[:1], 3)
    with pytest.raises(OutOfMemoryError, match=r"was given 1\.00 GiB, but weights and steps leave"):
        harness(model, plugins, "cardlike", num_blocks=None, kv_memory=FREE)
    eager = harness(model, plugins, "cardlike", num_blocks=None, capture=False)
    assert eager.loaded.memory.graphs == 0


def test_a_kernel_that_asks_the_host_keeps_steps_eager(
    model: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tramontane.backends.torch import TorchBackend

    monkeypatch.setattr(GraphedTorch, "candidates", TorchBackend.candidates)
    with caplog.at_level(logging.WARNING):
        one = harness(model, plugins, "graphedtorch")
    assert one.loaded.runner.replays is None
    assert any("torch.attend for attend" in message for message in caplog.messages)
    assert len(one.greedy(PROMPTS, 3)) == len(PROMPTS)


# --- the graphs themselves -------------------------------------------------------------------------------------------


def graphs() -> StepGraphs:
    return StepGraphs(Padding((4,), 3), CallRecorder())


def test_the_second_time_is_recorded_and_nothing_is_done_twice() -> None:
    """A recurrent state that a step writes has moved by one for each step."""
    state, one = torch.zeros(3), graphs()
    for step in range(1, 6):
        (result,) = one.run("a", lambda: (state.add_(1) * 2,))
        assert result.tolist() == [2.0 * step] * 3
    assert (one.recorded, one.replayed) == (1, 4)


def test_what_python_says_while_recording_is_frozen() -> None:
    """The stand-in is as blind as a graph: a kernel that takes a number from the host is found out by it."""
    number, memory, one = SimpleNamespace(value=1.0), torch.ones(2), graphs()
    results = []
    for value in (1.0, 2.0, 3.0):
        number.value = value
        results.append(one.run("a", lambda: (memory * number.value,))[0].tolist())
    assert results == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]


def test_work_that_cannot_be_recorded_runs_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    memory, one = torch.arange(4.0), graphs()

    def work() -> tuple[Tensor, ...]:
        return (memory * int(memory.sum().item()),)

    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert one.run("a", work)[0].tolist() == [0.0, 6.0, 12.0, 18.0]
    assert one.recorded == 0
    assert "waits for the device" in one.refused
    assert sum("no longer recorded" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("largest", [1, 5, 24, 300, 4096])
def test_sizes_are_few_and_near(largest: int) -> None:
    found = sizes(largest)
    assert found == tuple(sorted(set(found)))
    assert found[-1] == min(largest, LARGEST)
    assert len(found) <= 48
    padding = Padding(found, rows=64)
    for tokens in range(1, found[-1] + 1):
        size = padding.of(tokens, min(tokens, 64))
        assert size is not None
        assert tokens <= size[0] <= max(tokens + 3, tokens * 9 / 8)
        assert size[1] == size[2] == min(size[0], 65)
    assert padding.of(found[-1] + 1, 1) is None
    assert padding.of(1, 2) is None, "more logit rows than a step of that size has"
