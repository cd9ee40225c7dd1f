# SPDX-License-Identifier: Apache-2.0
"""The text side of one generated sequence: tokens in, text that can be shown out.

It decodes, looks for stop strings across token boundaries, and holds back what may yet become one. It lives outside the
engine: whoever owns it tells the engine to abort the sequence once :attr:`OutputText.stopped` is set.
"""

from __future__ import annotations

from collections.abc import Sequence

from tramontane.requests import SamplingParams
from tramontane.tokenizer import Detokenizer, Tokenizer


class StopStrings:
    """Finds the first stop string in a growing text.

    The first match is the one that is complete first; of those, the longest. So how the text is split into pieces
    changes nothing, and what was given out is never taken back.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, piece: str, *, include: bool = False) -> str:
        """Add a piece; returns what can be given out: nothing that may be the beginning of a stop string.

        Args:
            piece: More text.
            include: Give out the stop string itself when it is found.
        """
        if self.found is not None:
            return ""
        text = self._held + piece
        matches = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if matches:
            end, start, self.found = min(matches)
            self._held = ""
            return text[: end if include else start]
        self._held = text[self._settled(text) :]
        return text[: len(text) - len(self._held)]

    def finish(self) -> str:
        """The text is over: what was held back."""
        held, self._held = self._held, ""
        return held

    def _settled(self, text: str) -> int:
        """Where the longest ending of the text begins that is the beginning of a stop string."""
        settled = len(text)
        for stop in self._stop:
            at = max(0, len(text) - len(stop) + 1)
            while 0 <= (at := text.find(stop[0], at)) < settled:
                if stop.startswith(text[at:]):
                    settled = at
                    break
                at += 1
        return settled


class OutputText:
    """One sequence's output.

    Args:
        tokenizer: The model's tokenizer.
        prompt_ids: What the output continues; its text is not given out.
        params: ``stop``, ``include_stop``, ``min_tokens`` and ``skip_special_tokens`` matter here. A text that is
            complete before token ``min_tokens`` stops nothing.
        visible: Special tokens that are not left out, whatever ``params`` say.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        visible: frozenset[int] = frozenset(),
    ) -> None:
        self._detokenizer = Detokenizer(
            tokenizer, prompt_ids, skip_special_tokens=params.skip_special_tokens, visible=visible
        )
        self._stops = StopStrings(params.stop) if params.stop else None
        self._include_stop = params.include_stop
        self._min_tokens = params.min_tokens
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text; tokens after that add nothing."""
        return self.stop is not None

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text."""
        return self._stops.found if self._stops is not None else None

    @property
    def stops(self) -> bool:
        """Whether its text may end it."""
        return self._stops is not None

    def feed(self, *token_ids: int) -> str:
        """The text that tokens let be shown: never half a character, never the beginning of a stop string. A text that
        may end by itself takes them one at a time."""
        self._tokens += len(token_ids)
        return self._check(self._detokenizer.push(token_ids))

    def finish(self) -> str:
        """The sequence ended by other means: what was held back."""
        if self.stopped:
            return ""
        text = self._check(self._detokenizer.finish())
        return text + self._stops.finish() if self._stops is not None and not self.stopped else text

    def _check(self, text: str) -> str:
        if self._stops is None or self._tokens < self._min_tokens:
            return text
        return self._stops.push(text, include=self._include_stop)
