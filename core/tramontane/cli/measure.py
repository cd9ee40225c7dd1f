# SPDX-License-Identifier: Apache-2.0
"""The measurements behind ``tramontane bench``; it prints nothing.

Times are those at which the engine delivered tokens. *Prefill*: from handing over all prompts to the last first token;
for a depth the prefix cache is made to hold its tokens first, and what is counted is what was computed. *Decode*: from
the moment at which every request generates to the moment at which each has made the asked number of further tokens. The
tokens of all requests in between are counted, so that requests that began at different times do not blur it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from tramontane.errors import RequestError
from tramontane.grammar import Constraint
from tramontane.requests import SamplingParams

if TYPE_CHECKING:
    from tramontane.api import LLM


EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "logprobs": {"logprobs": 5},
    "grammar": {"constraint": Constraint.regex("([a-z]+ )*")},
}
"""What decoding may be measured with, and what a request then asks for: the five likeliest tokens of each step, or
words in lower case, of which no token is known before it is chosen."""


@frozen
class Case:
    """One line of the result. One of ``prompt`` and ``new`` is 0."""

    prompt: int
    new: int
    depth: int
    concurrency: int
    adapter: str | None = None
    extra: str | None = None
    """One of ``EXTRAS``."""

    @property
    def name(self) -> str:
        """llama-bench's name: ``pp512``, ``tg128``, ``tg128@d4096``; with an adapter or an extra ``tg128+NAME``."""
        what = f"pp{self.prompt}" if self.prompt else f"tg{self.new}"
        deep = f"{what}@d{self.depth}" if self.depth else what
        return "+".join((deep, *(name for name in (self.adapter, self.extra) if name is not None)))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence it needs at the least."""
        return max(self.depth, 1) + (self.prompt or self.new) + 1


def cases(
    prompts: Sequence[int],
    news: Sequence[int],
    depths: Sequence[int],
    concurrencies: Sequence[int],
    adapters: Sequence[str] = (),
    extras: Sequence[str] = (),
) -> list[Case]:
    """Every combination, first bare, then with each adapter, then decoding with each extra; zeros among ``prompts`` and
    ``news`` skip that half."""
    return [
        Case(prompt, new, depth, concurrency, adapter, extra)
        for concurrency in concurrencies
        for depth in depths
        for prompt, new in [*((p, 0) for p in prompts if p), *((0, n) for n in news if n)]
        for adapter, extra in [
            (None, None),
            *((name, None) for name in adapters),
            *((None, name) for name in extras if new),
        ]
    ]


@frozen
class Spread:
    """Mean and deviation of some samples."""

    samples: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.samples)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; 0 for one sample."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0


@frozen
class Measurement:
    """What a test came to."""

    case: Case
    tokens_per_s: Spread
    ttft_s: Spread
    """Mean time to first token of each repetition's requests."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "test": self.case.name,
            "tokens_per_s": self.tokens_per_s.mean,
            "stddev": self.tokens_per_s.deviation,
            "samples": list(self.tokens_per_s.samples),
            "ttft_s": self.ttft_s.mean,
            "ttft_stddev_s": self.ttft_s.deviation,
            "n_prompt": self.case.prompt,
            "n_gen": self.case.new,
            "n_depth": self.case.depth,
            "concurrency": self.case.concurrency,
            "adapter": self.case.adapter,
            "extra": self.case.extra,
            "repetitions": len(self.tokens_per_s.samples),
        }


@define
class Bench:
    """Measures one model.

    Args:
        llm: The model; its prefix cache is used by prefill at a depth and by nothing else, as each prompt is random.
        seed: Of the random prompts.
    """

    llm: LLM
    seed: int = 0
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def check(self, planned: Sequence[Case]) -> None:
        """Refuse tests that do not fit before anything is measured.

        Raises:
            RequestError: A test needs longer sequences than the model or the cache can hold; all such are named.
        """
        wrong = [case.name for case in planned if case.longest > self.llm.max_model_len]
        if wrong:
            raise RequestError(
                f"{', '.join(dict.fromkeys(wrong))}: too long, a sequence may have {self.llm.max_model_len} tokens",
                hint="ask for fewer tokens, or raise --max-model-len",
            )

    def measure(self, case: Case, repetitions: int) -> Measurement:
        """Run a test once to warm up and then ``repetitions`` times."""
        self.once(case)
        samples = [self.once(case) for _ in range(repetitions)]
        rates, first = zip(*samples, strict=True)
        return Measurement(case, Spread(rates), Spread(first))

    def once(self, case: Case) -> tuple[float, float]:
        """Run a test a single time: tokens per second, and the mean time to first token."""
        return self._prefill(case) if case.prompt else self._decode(case)

    def _prefill(self, case: Case) -> tuple[float, float]:
        """Rate, and mean time to first token."""
        begun = [self._prompt(case.depth) for _ in range(case.concurrency)]
        if case.depth:
            self._first_tokens(begun, case.adapter)
        prompts = [prompt + self._prompt(case.prompt) for prompt in begun]
        times, computed = self._first_tokens(prompts, case.adapter)
        if computed >= case.concurrency * (case.prompt + case.depth) and case.depth:
            raise RequestError(f"{case.name}: the cache kept nothing of the {case.depth} tokens before")
        return computed / max(times), statistics.fmean(times)

    def _first_tokens(self, prompts: list[list[int]], adapter: str | None) -> tuple[list[float], int]:
        """Seconds to the first token of each prompt, and how many prompt tokens were computed for them all."""
        params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
        start = time.monotonic()
        with self.llm.generate(prompts, params, stream=True, adapter=adapter) as stream:
            times = [delta.at - start for delta in stream if delta.token_ids]
            usages = [completion.usage for completion in stream.completions()]
        return times, sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)

    def _decode(self, case: Case) -> tuple[float, float]:
        """Rate while every request generates, and mean time to first token."""
        prompts = [self._prompt(max(case.depth, 1)) for _ in range(case.concurrency)]
        asked = {} if case.extra is None else EXTRAS[case.extra]
        params = SamplingParams(max_tokens=None, temperature=0, ignore_eos=True, **asked)
        made = [0] * case.concurrency
        first: dict[int, float] = {}
        begun = last = start = time.monotonic()
        with self.llm.generate(prompts, params, stream=True, adapter=case.adapter) as stream:
            for delta in stream:
                if len(first) < case.concurrency:
                    first.setdefault(delta.prompt, delta.at)
                    begun = last = delta.at
                elif delta.token_ids:
                    made[delta.prompt] += len(delta.token_ids)
                    last = delta.at
                if delta.finish_reason is not None or min(made) >= case.new:
                    break
        if last <= begun:
            raise RequestError(
                f"{case.name}: a request ended before all {case.concurrency} had begun",
                hint="ask for less depth or fewer requests at a time, or raise --max-model-len",
            )
        return sum(made) / (last - begun), statistics.fmean(at - start for at in first.values())

    def _prompt(self, length: int) -> list[int]:
        return [self._random.randrange(self.llm.vocab_size) for _ in range(length)]
