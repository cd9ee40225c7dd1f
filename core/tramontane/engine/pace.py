# SPDX-License-Identifier: Apache-2.0
"""How fast steps are: what the engine measures to keep prompts from holding up those who are already answered."""

from __future__ import annotations

from attrs import define

#: Weight of the newest measurement in the running means.
NEWEST = 0.2
#: Fewest prompt tokens a step may be cut to: below, a step's fixed cost would dominate.
LEAST_PROMPT_TOKENS = 16
#: A prompt may lengthen a decoding step this many times where that is more than the allowed seconds.
DECODE_STEPS = 2.0


@define
class Pace:
    """Running means of step times.

    Args:
        seconds: Seconds of prompt work allowed beside decoding rows.
        most: Most prompt tokens of any step.
    """

    seconds: float
    most: int
    decode_s: float = 0.0
    """Mean seconds of a step without prompt tokens; 0 before the first."""
    token_s: float = 0.0
    """Mean seconds that one prompt token adds to a step; 0 before the first."""
    step_s: float = 0.0
    """Mean seconds of a step."""
    tokens_per_s: float = 0.0
    """Mean tokens computed per second."""

    def observe(self, tokens: int, prompt_tokens: int, seconds: float) -> None:
        """Take note of one step's extent and duration."""
        self.step_s = _mean(self.step_s, seconds)
        self.tokens_per_s = _mean(self.tokens_per_s, tokens / max(seconds, 1e-9))
        if not prompt_tokens:
            self.decode_s = _mean(self.decode_s, seconds)
        elif prompt_tokens >= LEAST_PROMPT_TOKENS:
            added = seconds - self.decode_s if tokens > prompt_tokens else seconds
            self.token_s = _mean(self.token_s, max(added, 1e-9) / prompt_tokens)

    def prompt_cap(self) -> int:
        """Prompt tokens that a decoding step may take."""
        if not self.token_s:
            return self.most
        allowed = max(self.seconds, DECODE_STEPS * self.decode_s)
        return max(LEAST_PROMPT_TOKENS, min(self.most, int(allowed / self.token_s)))


def _mean(old: float, new: float) -> float:
    return old + NEWEST * (new - old) if old else new
