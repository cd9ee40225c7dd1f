# SPDX-License-Identifier: Apache-2.0
"""One choice of one request while it grows: its tokens, its text, why it ended."""

from __future__ import annotations

from attrs import define, field

from tramontane.api.results import Choice
from tramontane.requests import Delta, EngineRequest, FinishReason, TokenLogprobs
from tramontane.text import OutputText
from tramontane.tokenizer import Tokenizer


@define(eq=False)
class ChoiceOutput:
    """Collects the deltas of one choice. Without a tokenizer there is no text, and no stop strings are looked for."""

    request: EngineRequest
    index: int
    text_out: OutputText | None
    finish_reason: FinishReason | None = None
    token_ids: list[int] = field(factory=list)
    _text: list[str] = field(factory=list)
    _logprobs: list[TokenLogprobs] = field(factory=list)

    @classmethod
    def begin(cls, request: EngineRequest, index: int, tokenizer: Tokenizer | None) -> ChoiceOutput:
        """A choice that has no token yet."""
        ids, params = request.prompt_token_ids, request.sampling
        return cls(request, index, OutputText(tokenizer, ids, params) if tokenizer is not None else None)

    def push(self, delta: Delta) -> tuple[str, int]:
        """Take in a delta up to the token that completes a stop string.

        Returns:
            The text that can be shown now, and how many of the delta's tokens were taken.
        """
        text, taken = "", 0
        for token in delta.token_ids:
            taken += 1
            self.token_ids.append(token)
            text += self._feed(token, ends=delta.stop_token == token and taken == len(delta.token_ids))
            if self.finish_reason is not None:
                break
        self._logprobs += delta.logprobs[:taken]
        if self.finish_reason is None and delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            text += self.text_out.finish() if self.text_out is not None else ""
        if text:
            self._text.append(text)
        return text, taken

    def result(self) -> Choice:
        """The choice as far as it is known; one that goes on counts as cancelled."""
        return Choice(
            index=self.index,
            text="".join(self._text),
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason or FinishReason.CANCELED,
            logprobs=tuple(self._logprobs) if self.request.sampling.logprobs is not None else None,
        )

    def _feed(self, token: int, ends: bool) -> str:
        """The text a token lets be shown. An EOS or stop id that ended the choice is no text, unless asked for."""
        out = self.text_out
        if out is None or (ends and not self.request.sampling.include_stop):
            return ""
        text = out.feed(token)
        if out.stopped:
            self.finish_reason = FinishReason.STOP
        return text
