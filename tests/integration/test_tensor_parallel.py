# SPDX-License-Identifier: Apache-2.0
"""A model that several workers share answers as it does alone: workers in threads, and in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tramontane import LLM, SamplingParams
from tramontane.errors import ConfigError, EngineError, PlanError
from tramontane.load import LoadOptions, save_model
from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.workers import Threads, shared

PROMPTS = [list(range(3, 20)), [5, 6, 7], [40]]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 151, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


def samples(*names: str) -> Iterator[Any]:
    """The first sample of each architecture; all samples of all that say they can be shared, without names."""
    for spec in installed().catalogs.architectures:
        if not spec.samples or (names and spec.name not in names) or not spec.tensor_parallel:
            continue
        found = list(spec.load("samples")().items())
        for name, config in found[:1] if names else found:
            yield pytest.param(config, id=f"{spec.name}-{name}")


def assert_shared_is_alone(path: Path, world: int = 2, **options: Any) -> Threads:
    alone = Harness.load(path, **{k: v for k, v in options.items() if k != "expert_parallel"})
    with shared(path, world, **options) as together:
        logits, wanted = together.logits(PROMPTS[0]), alone.logits(PROMPTS[0])
        assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert together.greedy(PROMPTS, 6, overlap=True) == alone.greedy(PROMPTS, 6)
        team = together.loaded.team
    assert isinstance(team, Threads)
    return team


@pytest.mark.parametrize("config", list(samples("llama", "qwen3", "qwen3moe", "deepseek3")))
def test_two_workers_answer_as_one(config: dict[str, Any], tmp_path: Path) -> None:
    assert_shared_is_alone(write_random(tmp_path / "model", config), backend="torch")


@pytest.mark.full
@pytest.mark.parametrize("config", list(samples()))
def test_every_architecture_that_says_so_can_be_shared(config: dict[str, Any], tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", config)
    if config.get("num_key_value_heads") == 3:  # samples of uneven sizes are refused while they are planned
        reason = "3 elements do not split evenly over 2 workers|norms each head by weights of its own"
        with pytest.raises(PlanError, match=reason):
            assert_shared_is_alone(path, backend="torch")
    else:
        assert_shared_is_alone(path, backend="torch")


@pytest.mark.parametrize("backend", ["auto", pytest.param("torch", marks=pytest.mark.full)])
def test_quantized_weights_are_cut_between_their_blocks(backend: str, tmp_path: Path) -> None:
    """The same blocks as alone, so the same weights; a vocabulary that does not divide; the native program where it is
    installed."""
    assert_shared_is_alone(write_random(tmp_path / "model", LLAMA), quant="q8_0", backend=backend)


@pytest.mark.parametrize("config", list(samples("qwen3moe")))
def test_experts_may_be_spread_whole(config: dict[str, Any], tmp_path: Path) -> None:
    assert_shared_is_alone(write_random(tmp_path / "model", config), backend="torch", expert_parallel=True)


@pytest.mark.full
def test_four_workers_have_two_key_heads_twice(tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", LLAMA)
    team = assert_shared_is_alone(path, world=4, backend="torch")
    assert sum("step" in order for order in team.told) > 5


# --- what does not go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "world", "words"),
    [
        ({}, 3, r"self_attn.*4 elements do not split evenly over 3 workers"),
        ({"intermediate_size": 129}, 2, r"mlp.*129 elements do not split evenly over 2 workers"),
        ({"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16}, 2, r"k_proj.*3 elements"),
    ],
)
def test_shapes_that_do_not_divide_are_said(changes: dict[str, int], world: int, words: str, tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", {**LLAMA, **changes})
    with pytest.raises(PlanError, match=words), shared(path, world, backend="torch"):
        pass


def test_blocks_that_would_be_cut_are_said(tmp_path: Path) -> None:
    """Rows of 96 inputs are three blocks of 32; two workers would have one and a half each."""
    path = write_random(tmp_path / "model", {**LLAMA, "intermediate_size": 96})
    save_model(str(path), tmp_path / "saved", LoadOptions(quant="q8_0"))
    with pytest.raises(PlanError, match="cannot be cut at 48"), shared(tmp_path / "saved"):
        pass


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"tensor_parallel": 0}, ConfigError, "tensor_parallel must be"),
        ({"expert_parallel": True}, ConfigError, "expert_parallel spreads experts over workers"),
        ({"tensor_parallel": 2, "device_map": "cpu=rest"}, ConfigError, "not both"),
        ({"tensor_parallel": 2, "device": "cpu:1"}, ConfigError, "takes the devices cpu:0 to cpu:1"),
        ({"tensor_parallel": 64, "device": "cuda"}, PlanError, "64 workers need 64 CUDA devices"),
    ],
)
def test_settings_that_contradict_are_said(
    settings: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        LLM(str(write_random(tmp_path / "model", LLAMA)), **settings)


def test_an_architecture_that_does_not_say_so_is_refused(tmp_path: Path) -> None:
    spec = next(s for s in installed().catalogs.architectures if s.samples and not s.tensor_parallel)
    path = write_random(tmp_path / "model", next(iter(spec.load("samples")().values())))
    with pytest.raises(PlanError, match=f"architecture {spec.name} does not say"), shared(path):
        pass


# --- processes -------------------------------------------------------------------------------------------------------


def test_workers_are_processes_that_end_with_the_model(tmp_path: Path) -> None:
    path = str(write_random(tmp_path / "model", LLAMA))
    params = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True)
    settings: dict[str, Any] = {"max_num_seqs": 4, "max_batched_tokens": 64, "num_blocks": 64, "threads": 1}
    with LLM(path, **settings) as alone:
        wanted = [one.token_ids for one in alone.generate(PROMPTS, params)]
    with LLM(path, tensor_parallel=2, **settings) as together:
        assert [one.token_ids for one in together.generate(PROMPTS, params)] == wanted
        with pytest.raises(PlanError, match="cannot be exchanged"):
            together.requantize("q8_0")
        (worker,) = together._service.running.model.team.workers  # type: ignore[attr-defined]
        worker.kill()
        worker.wait()
        with pytest.raises(EngineError, match="worker"):
            together.generate(PROMPTS, params)
    assert worker.poll() is not None
