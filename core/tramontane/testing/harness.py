# SPDX-License-Identifier: Apache-2.0
"""Driving a loaded model token by token, without text, threads or servers: what invariance and parity tests use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, evolve, field
from numpy.typing import NDArray

from tramontane.engine import EngineConfig, EngineCore
from tramontane.load import LoadedModel, LoadOptions, load_model
from tramontane.plugins import Plugins
from tramontane.requests import Delta, EngineRequest, SamplingParams, Task

MAX_TOP = 1024
"""Most log-probabilities that a request may ask for: the largest vocabulary for which distributions are compared."""

SMALL = EngineConfig(max_num_seqs=8, max_batched_tokens=256, block_tokens=16, num_blocks=256)
"""An engine that fits a tiny model."""


@define(eq=False)
class Continuation:
    """What followed a prompt, and how sure the model was. Legend: S steps, V vocabulary."""

    token_ids: list[int]
    logprobs_SV: NDArray[np.float32]
    """Log-probabilities of the whole vocabulary that each token was chosen from."""
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""


@define(eq=False)
class Harness:
    """An engine over a loaded model, run step by step in the caller's thread."""

    loaded: LoadedModel
    core: EngineCore
    _serial: int = field(default=0, init=False)

    @classmethod
    def load(cls, path: Path | str, *, plugins: Plugins | None = None, **changes: Any) -> Harness:
        """Load with ``LoadOptions`` fields; engine settings are given by their own names."""
        engine_fields = {a.name for a in EngineConfig.__attrs_attrs__}
        engine = evolve(SMALL, **{k: v for k, v in changes.items() if k in engine_fields})
        options = LoadOptions(engine=engine, **{k: v for k, v in changes.items() if k not in engine_fields})
        loaded = load_model(str(path), options, plugins=plugins)
        return cls(loaded, EngineCore(loaded.runner, loaded.engine))

    def run(self, requests: Sequence[EngineRequest], *, overlap: bool = False) -> dict[str, list[Delta]]:
        """Run requests to their end; the deltas of each."""
        found: dict[str, list[Delta]] = {request.id: [] for request in requests}
        for request in requests:
            self.core.add(request)
        while self.core.has_work:
            for delta in self.core.overlap_step() if overlap else self.core.step():
                found[delta.request_id].append(delta)
        return found

    def greedy(self, prompts: Sequence[Sequence[int]], tokens: int, *, overlap: bool = False) -> list[list[int]]:
        """Greedy continuations, all prompts in one batch."""
        sampling = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        requests = [self.request(prompt, sampling) for prompt in prompts]
        found = self.run(requests, overlap=overlap)
        return [_tokens(found[request.id]) for request in requests]

    def logits(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every prompt token: float32 [tokens, vocabulary]."""
        request = self.request(prompt, SamplingParams(max_tokens=1), task=Task.LOGITS)
        deltas = self.run([request])[request.id]
        failed = [delta.error for delta in deltas if delta.error]
        if failed:
            raise RuntimeError(f"the engine failed: {failed[0]}")
        (output,) = [delta.output for delta in deltas if delta.output is not None]
        return np.asarray(output)

    def continuations(
        self, prompts: Sequence[Sequence[int]], tokens: int, *, overlap: bool = False
    ) -> list[Continuation]:
        """Greedy continuations with their distributions, all prompts in one batch; for vocabularies up to MAX_TOP."""
        vocab = self.loaded.runner.vocab_size
        if vocab > MAX_TOP:
            raise ValueError(f"whole distributions are for vocabularies of up to {MAX_TOP} tokens, this has {vocab}")
        sampling = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, logprobs=vocab)
        requests = [self.request(prompt, sampling) for prompt in prompts]
        found = self.run(requests, overlap=overlap)
        return [_continuation(found[request.id], vocab) for request in requests]

    def request(self, prompt: Sequence[int], sampling: SamplingParams, *, task: Task = Task.GENERATE) -> EngineRequest:
        """A request with a fresh id."""
        self._serial += 1
        return EngineRequest(id=f"r{self._serial}", prompt_token_ids=tuple(prompt), sampling=sampling, task=task)


def _tokens(deltas: Sequence[Delta]) -> list[int]:
    failed = [delta.error for delta in deltas if delta.error]
    if failed:
        raise RuntimeError(f"the engine failed: {failed[0]}")
    return [token for delta in deltas for token in delta.token_ids]


def _continuation(deltas: Sequence[Delta], vocab: int) -> Continuation:
    tokens = _tokens(deltas)
    logprobs_SV = np.full((len(tokens), vocab), np.nan, np.float32)
    for row_V, given in zip(logprobs_SV, (one for delta in deltas for one in delta.logprobs), strict=True):
        for token, value in given.top:
            row_V[token] = value
    return Continuation(tokens, logprobs_SV, sum(delta.cached_tokens for delta in deltas))
