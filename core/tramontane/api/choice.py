# SPDX-License-Identifier: Apache-2.0
"""One choice of one request while it grows: its tokens, its text, why it ended."""

from __future__ import annotations

from attrs import define, field

from tramontane.api.reading import Reading
from tramontane.api.results import Choice
from tramontane.chat.parsing import OutputParser, Parsed
from tramontane.requests import Delta, EngineRequest, FinishReason, TokenLogprobs
from tramontane.text import OutputText
from tramontane.tokenizer import Tokenizer
from tramontane.tools.calls import ToolCall


@define(eq=False)
class Piece:
    """What some tokens let be shown, of kinds in their order."""

    shown: Parsed = field(factory=Parsed)
    tokens: int = 0
    thought: int = 0
    """How many of the tokens showed reasoning and nothing else."""


@define(eq=False)
class ChoiceOutput:
    """Collects the deltas of one choice. Without a tokenizer there is no text, and no stop strings are looked for."""

    request: EngineRequest
    index: int
    text_out: OutputText | None
    parser: OutputParser | None = None
    """Tells reasoning and calls from the text, where the request is a chat."""
    finish_reason: FinishReason | None = None
    token_ids: list[int] = field(factory=list)
    _text: list[str] = field(factory=list)
    _reasoning: list[str] = field(factory=list)
    _calls: list[_Call] = field(factory=list)
    _logprobs: list[TokenLogprobs] = field(factory=list)

    @classmethod
    def begin(
        cls, request: EngineRequest, index: int, tokenizer: Tokenizer | None, reading: Reading | None = None
    ) -> ChoiceOutput:
        """A choice that has no token yet."""
        ids, params = request.prompt_token_ids, request.sampling
        if tokenizer is None:
            return cls(request, index, None)
        if reading is None:
            return cls(request, index, OutputText(tokenizer, ids, params))
        return cls(request, index, OutputText(tokenizer, ids, params, reading.visible), reading.parser())

    def push(self, delta: Delta) -> list[Piece]:
        """Take in a delta up to the token that completes a stop string.

        Returns:
            What can be shown now, in order: one piece, unless its kinds alternate.
        """
        if self.parser is None and (self.text_out is None or not self.text_out.stops):
            return [self._push_plain(delta)]
        pieces = [Piece()]
        for place, token in enumerate(delta.token_ids, 1):
            self.token_ids.append(token)
            ends = delta.stop_token == token and place == len(delta.token_ids)
            _grow(pieces, self._feed(token, ends), 1)
            if self.finish_reason is not None:
                break
        self._logprobs += delta.logprobs[: sum(piece.tokens for piece in pieces)]
        if self.finish_reason is None and delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            _grow(pieces, self._parse(self.text_out.finish() if self.text_out is not None else ""))
        if self.finish_reason is not None and self.parser is not None:
            _grow(pieces, self.parser.finish())
            if self.finish_reason is FinishReason.STOP and self.parser.calls:
                self.finish_reason = FinishReason.TOOL_CALLS
        for piece in pieces:
            self._keep(piece.shown)
        return pieces

    def _push_plain(self, delta: Delta) -> Piece:
        """The same for a text that nothing in it can end: its tokens are decoded at once."""
        out, tokens = self.text_out, delta.token_ids
        self.token_ids.extend(tokens)
        self._logprobs += delta.logprobs
        text = ""
        if out is not None:
            ended = delta.stop_token is not None and tokens[-1:] == (delta.stop_token,)
            text = out.feed(*(tokens[:-1] if ended and not self.request.sampling.include_stop else tokens))
            text += out.finish() if delta.finish_reason is not None else ""
        self.finish_reason = delta.finish_reason
        piece = Piece(Parsed(text), len(tokens))
        self._keep(piece.shown)
        return piece

    def result(self) -> Choice:
        """The choice as far as it is known; one that goes on counts as cancelled."""
        return Choice(
            index=self.index,
            text="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            tool_calls=tuple(call.whole() for call in self._calls),
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason or FinishReason.CANCELED,
            logprobs=tuple(self._logprobs) if self.request.sampling.logprobs is not None else None,
        )

    def _feed(self, token: int, ends: bool) -> Parsed:
        """What a token lets be shown. An EOS or stop id that ended the choice is no text, unless asked for."""
        out = self.text_out
        if out is None or (ends and not self.request.sampling.include_stop):
            return Parsed()
        shown = self._parse(out.feed(token))
        if out.stopped or (self.parser is not None and self.parser.closed):
            self.finish_reason = FinishReason.STOP
        return shown

    def _parse(self, text: str) -> Parsed:
        return self.parser.push(text) if self.parser is not None and text else Parsed(text)

    def _keep(self, shown: Parsed) -> None:
        """Add a piece to what the whole choice will be."""
        if shown.text:
            self._text.append(shown.text)
        if shown.reasoning:
            self._reasoning.append(shown.reasoning)
        for delta in shown.calls:
            if delta.index == len(self._calls):
                self._calls.append(_Call(delta.id or "", delta.name or ""))
            self._calls[delta.index].arguments.append(delta.arguments)


def _grow(pieces: list[Piece], shown: Parsed, tokens: int = 0) -> None:
    """Add what further tokens showed to the last piece, or a new piece where it has no place there."""
    if not pieces[-1].shown.goes_with(shown):
        pieces.append(Piece())
    last = pieces[-1]
    last.shown += shown
    last.tokens += tokens
    if shown.reasoning and not (shown.text or shown.calls):
        last.thought += tokens


@define(eq=False)
class _Call:
    """A tool call while it grows."""

    id: str
    name: str
    arguments: list[str] = field(factory=list)

    def whole(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.name, arguments="".join(self.arguments))
