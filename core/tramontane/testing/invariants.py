# SPDX-License-Identifier: Apache-2.0
"""What must not change a model's results: chunking, batching, block size, prefix reuse, capture, preemption, overlap.

Each check loads one checkpoint in two ways, runs both and compares distributions over the whole vocabulary. The checks
know no model and need nothing but the checkpoint, so they hold for plugins of third parties too; parity with another
implementation is :mod:`tramontane.testing.parity`'s business.

Legend: T tokens, S steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from tramontane.plugins import Plugins
from tramontane.requests import SamplingParams
from tramontane.testing.harness import Continuation, Harness

PROMPT = 48
"""Tokens of a prompt: longer than the windows, and than the trained lengths of the scaled ropes, of the samples."""
NEW = 64
"""Tokens of a greedy continuation."""
LENGTH = PROMPT + NEW
TOLERANCE = 1e-4
"""Largest difference in float32, as a share of the largest logit (of 1, if that is less)."""
BLOCK = 8
"""Tokens per block where a check wants many blocks."""


@define(eq=False)
class Subject:
    """A checkpoint under test: how it is loaded, and how closely its runs must agree."""

    path: Path
    options: Mapping[str, Any] = field(factory=dict)
    """Options for every load, by the names of ``LoadOptions`` and ``EngineConfig``."""
    tolerance: float = TOLERANCE
    plugins: Plugins | None = None
    _plain: Harness | None = field(default=None, init=False, repr=False)

    def load(self, **changes: Any) -> Harness:
        """The model in a fresh engine."""
        return Harness.load(self.path, plugins=self.plugins, **{"max_model_len": LENGTH, **self.options, **changes})

    @property
    def plain(self) -> Harness:
        """The model loaded without any change; made once. Its prefix cache is off, so that no run sees another."""
        if self._plain is None:
            self._plain = self.load(prefix_cache=False)
        return self._plain

    def prompt(self, tokens: int = PROMPT, seed: int = 0) -> list[int]:
        """Random ids that are no special tokens."""
        vocab = self.plain.loaded.runner.vocab_size
        return [int(token) for token in np.random.default_rng(seed).integers(3, vocab, tokens)]


def assert_close(ours: NDArray[np.float32], theirs: NDArray[np.float32], tolerance: float, what: str) -> None:
    """Compare logits or log-probabilities [T, V] row by row.

    Raises:
        AssertionError: A row differs by more than ``tolerance * max(1, its largest magnitude)``; names the worst.
    """
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: shapes {ours.shape} and {theirs.shape}")
    difference_T = np.abs(ours - theirs).max(-1)
    allowed_T = tolerance * np.maximum(1.0, np.abs(theirs).max(-1))
    if not bool((difference_T <= allowed_T).all()):  # NaN fails too
        wrong = ~(difference_T <= allowed_T)
        first, worst = int(np.argmax(wrong)), int(np.argmax(difference_T / allowed_T))
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {len(wrong)} rows differ, the first is {first}; "
            f"row {worst} differs by {difference_T[worst]:.3g}, allowed is {allowed_T[worst]:.3g}"
        )


def tie(row_V: NDArray[np.float32], tolerance: float) -> bool:
    """The two largest values are too close for a choice to mean anything."""
    best = np.sort(row_V)[-2:]
    return bool(best[1] - best[0] < 2 * tolerance * max(1.0, float(np.abs(row_V).max())))


def assert_same(ours: Continuation, theirs: Continuation, tolerance: float, what: str) -> None:
    """Tokens and distributions are equal up to the first step at which two tokens tie."""
    steps = min(len(ours.token_ids), len(theirs.token_ids))
    for step, (a, b) in enumerate(zip(ours.token_ids, theirs.token_ids, strict=True)):
        if a != b:
            if not tie(theirs.logprobs_SV[step], tolerance):
                raise AssertionError(f"{what}: token {a} instead of {b} at step {step}, which is no tie")
            steps = step + 1
            break
    assert_close(ours.logprobs_SV[:steps], theirs.logprobs_SV[:steps], tolerance, what)


# --- the checks -------------------------------------------------------------------------------------------------------


def chunked(subject: Subject) -> None:
    """A prompt in chunks, or token by token, gives the logits of the whole prompt."""
    prompt = subject.prompt()
    whole = subject.plain.logits(prompt)
    for budget in (7, 1):
        part = subject.load(max_batched_tokens=budget, max_num_seqs=1)
        assert_close(part.logits(prompt), whole, subject.tolerance, f"chunks of {budget} against the whole prompt")


def batched(subject: Subject) -> None:
    """Sequences that run side by side, starting at different lengths, give what each gives alone."""
    prompts = [subject.prompt(tokens, seed=tokens) for tokens in (PROMPT, 5, 1, 31, 17, 12)]
    together = subject.plain.continuations(prompts, 12)
    for prompt, ours in zip(prompts, together, strict=True):
        (alone,) = subject.plain.continuations([prompt], 12)
        assert_same(ours, alone, subject.tolerance, f"a prompt of {len(prompt)} tokens in a batch against alone")


def block_sizes(subject: Subject) -> None:
    """The number of tokens in a cache block changes nothing."""
    prompt = subject.prompt()
    (usual,) = subject.plain.continuations([prompt], 12)
    for size in (5, 64):
        (other,) = subject.load(block_tokens=size, prefix_cache=False).continuations([prompt], 12)
        assert_same(other, usual, subject.tolerance, f"blocks of {size} tokens")


def prefix_reuse(subject: Subject) -> None:
    """A prompt whose beginning is in the cache gives what it gives in an empty engine."""
    shared = subject.prompt(PROMPT - 8)
    engine = subject.load(block_tokens=BLOCK)
    engine.continuations([shared + subject.prompt(8, seed=1)], 12)
    for seed in (1, 2):
        prompt = shared + subject.prompt(8, seed=seed)
        (hit,) = engine.continuations([prompt], 12)
        (miss,) = subject.plain.continuations([prompt], 12)
        if not hit.cached_tokens:
            raise AssertionError("nothing of the shared beginning was found in the prefix cache")
        assert_same(hit, miss, subject.tolerance, f"a prefix hit of {hit.cached_tokens} tokens")


def captured(subject: Subject) -> None:
    """The recorded step is not refused, has no torch code of the model's own, and gives what the model's code gives."""
    prompts = [subject.prompt(), subject.prompt(9, seed=1)]
    recorded, eager = subject.load(capture=True), subject.load(capture=False)
    if recorded.loaded.capture_note != "captured":
        raise AssertionError(f"the step is not captured: {recorded.loaded.capture_note}")
    assert_close(recorded.logits(prompts[0]), eager.logits(prompts[0]), subject.tolerance, "captured against eager")
    both = zip(recorded.continuations(prompts, 12), eager.continuations(prompts, 12), strict=True)
    for ours, theirs in both:
        assert_same(ours, theirs, subject.tolerance, "captured against eager")


def preempted(subject: Subject) -> None:
    """Sequences that are thrown out of a full cache and computed again give what they give with room."""
    prompts, new = [subject.prompt(tokens, seed=tokens) for tokens in (3, 4, 2)], 40
    roomy = subject.load(block_tokens=4, prefix_cache=False, max_model_len=4 + new)
    layout = roomy.loaded.runner.cache_layout
    if not layout.groups:
        return
    # Room for one of them at its full length: all start, and all but one have to go again.
    tight = subject.load(
        block_tokens=4, prefix_cache=False, max_model_len=4 + new, num_blocks=1 + layout.blocks_for(4 + new)
    )
    found = tight.continuations(prompts, new)
    if not tight.core.stats().preemptions:
        raise AssertionError("nothing was preempted, so the check proves nothing")
    for ours, theirs in zip(found, roomy.continuations(prompts, new), strict=True):
        assert_same(ours, theirs, subject.tolerance, "preempted against undisturbed")
    tight.core.check_integrity()


def overlapped(subject: Subject) -> None:
    """Steps launched before the last one's tokens are read give the same tokens."""
    prompts = [subject.prompt(), subject.prompt(9, seed=1)]
    behind = subject.load(prefix_cache=False).continuations(prompts, 12, overlap=True)
    for ours, theirs in zip(behind, subject.plain.continuations(prompts, 12), strict=True):
        assert_same(ours, theirs, subject.tolerance, "overlapped against one step at a time")


def like_reference(subject: Subject) -> None:
    """The chosen backend's kernels give what the ops' own definitions give."""
    prompt = subject.prompt()
    slow = subject.load(backend="reference", prefix_cache=False)
    assert_close(subject.plain.logits(prompt), slow.logits(prompt), subject.tolerance, "against the reference backend")


def bit_for_bit(subject: Subject) -> None:
    """On the reference backend in its invariant mode a token's result depends on its row alone, to the last bit."""
    exact = {"backend": "reference-invariant", "prefix_cache": False}
    prompts = [subject.prompt(tokens, seed=tokens) for tokens in (21, 6)]
    engine, chunks = subject.load(**exact), subject.load(**exact, max_batched_tokens=5, max_num_seqs=2)
    together = zip(prompts, engine.continuations(prompts, 4), chunks.continuations(prompts, 4), strict=True)
    for prompt, whole, chunked in together:
        (alone,) = engine.continuations([prompt], 4)
        for other, what in ((whole, "in a batch"), (chunked, "in chunks")):
            if other.token_ids != alone.token_ids or not np.array_equal(other.logprobs_SV, alone.logprobs_SV):
                raise AssertionError(f"a prompt of {len(prompt)} tokens gives other bits {what} than alone")


def forgetting(subject: Subject) -> None:
    """A sequence never holds more blocks than its layers need: those that have left every window are given back."""
    engine = subject.load(block_tokens=BLOCK, prefix_cache=False)
    engine.core.add(engine.request(subject.prompt(), SamplingParams(max_tokens=NEW, temperature=0, ignore_eos=True)))
    held = []
    while engine.core.has_work:
        engine.core.step()
        held.append(engine.core.stats().blocks_used)
    allowed = engine.loaded.runner.cache_layout.blocks_for(LENGTH)
    if max(held[2:]) > allowed:  # the whole prompt is one chunk, which needs all of its blocks at first
        raise AssertionError(f"a sequence of {LENGTH} tokens held {max(held[2:])} blocks where {allowed} are enough")


INVARIANTS: Mapping[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        chunked,
        batched,
        block_sizes,
        prefix_reuse,
        captured,
        preempted,
        overlapped,
        like_reference,
        bit_for_bit,
        forgetting,
    )
}
"""Name -> check. A check returns nothing and raises ``AssertionError``."""


def teacher_forced(token_ids: Sequence[int], logits_SV: NDArray[np.float32], tolerance: float, what: str) -> None:
    """Each token is the best of its row, up to ties: greedy decoding, told from the logits of its own text."""
    for step, (token, row_V) in enumerate(zip(token_ids, logits_SV, strict=True)):
        best = int(row_V.argmax())
        if token != best and not tie(row_V, tolerance):
            raise AssertionError(f"{what}: token {token} instead of {best} at step {step}, which is no tie")
