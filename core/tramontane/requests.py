# SPDX-License-Identifier: Apache-2.0
"""What goes into an engine and what comes out: frozen, serializable records.

This module imports neither torch nor a tokenizer, so that frontends and a remote process can use it cheaply. It holds
no behaviour beyond validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from attrs import field, frozen

from tramontane.errors import RequestError
from tramontane.grammar.constraint import Constraint

MAX_N = 1024
MAX_STOP_STRINGS = 256
MAX_STOP_LENGTH = 4096
MAX_TOP_LOGPROBS = 1024
MAX_LOGIT_BIAS = 65_536


class FinishReason(StrEnum):
    """Why a sequence ended. ``STOP``: EOS, a stop id or a stop string; ``LENGTH``: a token limit; ``TOOL_CALLS``: it
    stopped, and calls tools (only where the output of a chat is parsed; an engine never says it)."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELED = "canceled"
    ERROR = "error"


class Task(StrEnum):
    """What a request asks of the model."""

    GENERATE = "generate"
    LOGITS = "logits"
    EMBED = "embed"


def _tuple_of_str(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _tuple_of_int(value: Iterable[int] | None) -> tuple[int, ...]:
    return tuple(int(token) for token in value or ())


def _bias(value: Mapping[int, float] | Sequence[tuple[int, float]] | None) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    items = value.items() if isinstance(value, Mapping) else value
    return tuple(sorted((int(token), float(bias)) for token, bias in items))


@frozen(kw_only=True)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    The order in which these apply is the field's: logit bias, repetition/frequency/presence penalties, DRY, grammar
    mask, temperature, top-k, top-p, min-p, draw. ``temperature=0`` is greedy: the arg-max after penalties and masks,
    lowest id on ties.
    """

    max_tokens: int | None = field(default=16)
    """Most new tokens; ``None`` means up to the model's context length."""
    min_tokens: int = 0
    """EOS and stop ids are not sampled before this many new tokens."""
    temperature: float = 1.0
    top_k: int = 0
    """Keep the k most likely tokens; 0 or -1 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose mass (after top-k, renormalized) reaches this."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the most likely one."""
    repetition_penalty: float = 1.0
    """CTRL penalty over prompt and output: positive logits are divided, negative ones multiplied; 1 is off."""
    frequency_penalty: float = 0.0
    """OpenAI penalty: subtracted once per occurrence in the output."""
    presence_penalty: float = 0.0
    """OpenAI penalty: subtracted once if the token occurs in the output."""
    dry_multiplier: float = 0.0
    """DRY penalty strength; 0 is off."""
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breakers: tuple[str, ...] = field(default=("\n", ":", '"', "*"), converter=_tuple_of_str)
    logit_bias: tuple[tuple[int, float], ...] = field(default=(), converter=_bias)
    seed: int | None = None
    """A seed makes the draw a function of (seed, index of the choice, position) alone: no batch changes it."""
    n: int = 1
    logprobs: int | None = None
    """Report the log-probability of each chosen token and of this many most likely ones (unfiltered distribution)."""
    prompt_logprobs: int | None = None
    stop: tuple[str, ...] = field(default=(), converter=_tuple_of_str)
    stop_token_ids: tuple[int, ...] = field(default=(), converter=_tuple_of_int)
    include_stop: bool = False
    """Keep the stop string in the returned text."""
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    constraint: Constraint | None = None
    """What the output must look like: a JSON schema, a pattern, a grammar ..."""

    def __attrs_post_init__(self) -> None:
        wrong = list(_faults(self))
        if wrong:
            said = "; ".join(f"{name} {fault}" for name, fault in wrong)
            raise RequestError(f"wrong sampling parameters: {said}", param=wrong[0][0])


def _faults(p: SamplingParams) -> Iterator[tuple[str, str]]:
    """Yield each parameter that is out of range, and what is wrong with it. NaN fails every comparison, so ranges are
    asked for."""
    numbers: tuple[tuple[str, float, float, float], ...] = (
        ("temperature", p.temperature, 0.0, 100.0),
        ("top_p", p.top_p, 0.0, 1.0),
        ("min_p", p.min_p, 0.0, 1.0),
        ("repetition_penalty", p.repetition_penalty, 1e-3, 100.0),
        ("frequency_penalty", p.frequency_penalty, -100.0, 100.0),
        ("presence_penalty", p.presence_penalty, -100.0, 100.0),
        ("dry_multiplier", p.dry_multiplier, 0.0, 100.0),
        ("dry_base", p.dry_base, 1.0, 100.0),
    )
    for name, number, least, most in numbers:
        if not _is_number(number) or not least <= number <= most:
            yield name, f"must be between {least:g} and {most:g}, got {number!r}"
    if _is_number(p.top_p) and p.top_p == 0.0:
        yield "top_p", "must be above 0 (use temperature=0 for greedy decoding)"
    whole: tuple[tuple[str, object, int, int, bool], ...] = (
        ("max_tokens", p.max_tokens, 1, 2**31 - 1, True),
        ("min_tokens", p.min_tokens, 0, 2**31 - 1, False),
        ("top_k", p.top_k, -1, 2**31 - 1, False),
        ("dry_allowed_length", p.dry_allowed_length, 0, 2**20, False),
        ("seed", p.seed, 0, 2**64 - 1, True),
        ("n", p.n, 1, MAX_N, False),
        ("logprobs", p.logprobs, 0, MAX_TOP_LOGPROBS, True),
        ("prompt_logprobs", p.prompt_logprobs, 0, MAX_TOP_LOGPROBS, True),
    )
    for name, value, low, high, optional in whole:
        if value is None and optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            yield name, f"must be a whole number from {low} to {high}, got {value!r}"
    if p.max_tokens is not None and _is_number(p.min_tokens) and p.min_tokens > p.max_tokens:
        yield "min_tokens", f"({p.min_tokens}) is above max_tokens ({p.max_tokens})"
    if len(p.stop) > MAX_STOP_STRINGS or not all(_is_stop(text) for text in p.stop):
        yield "stop", f"must be at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_LENGTH} characters"
    if len(p.logit_bias) > MAX_LOGIT_BIAS or any(token < 0 or math.isnan(bias) for token, bias in p.logit_bias):
        yield "logit_bias", f"must map at most {MAX_LOGIT_BIAS} token ids (not negative) to numbers"
    if any(token < 0 for token in p.stop_token_ids):
        yield "stop_token_ids", "must not be negative"
    constraint: object = p.constraint
    if not isinstance(constraint, Constraint | None):
        yield "constraint", f"must be a tramontane.grammar.Constraint, got {type(constraint).__name__}"


def _is_stop(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_STOP_LENGTH


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@frozen
class AdapterRef:
    """A loaded adapter that a request uses."""

    name: str
    generation: int
    """A number that no other adapter of the process has."""
    column: int
    """Its place in the ``mix`` of batches."""


@frozen(kw_only=True)
class EngineRequest:
    """One request as the engine core takes it: token ids in, no text anywhere."""

    id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams = field(factory=SamplingParams)
    task: Task = Task.GENERATE
    eos_token_ids: tuple[int, ...] = ()
    salt: bytes = b""
    """Separates prefix-cache entries of tenants that must not see each other's timing."""
    adapter: AdapterRef | None = None
    """What is added to the model's weights; ``None`` for the model as it is."""
    priority: int = 0
    """Higher runs first."""
    arrival: float = 0.0
    """``time.monotonic()`` at arrival; 0 lets the engine fill it."""


@frozen(kw_only=True)
class TokenLogprobs:
    """Log-probabilities (natural) at one position: the chosen token, its rank (1 = most likely), and the top ones."""

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@frozen(kw_only=True)
class Delta:
    """What one step adds to one sequence of one request."""

    request_id: str
    index: int = 0
    """Which of the request's ``n`` choices."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop_token: int | None = None
    """The EOS or stop id that ended the sequence (it is the last of ``token_ids`` too)."""
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache; sent with the first delta."""
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    output: object | None = None
    """Task ``LOGITS``: float32 array [tokens, vocab]; task ``EMBED``: float32 array [hidden]."""
    error: str | None = None
    error_code: str | None = None
    """The :attr:`tramontane.errors.TramontaneError.code` of an error that the request itself is to blame for."""
