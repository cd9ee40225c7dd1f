# SPDX-License-Identifier: Apache-2.0
"""From what a step computed for one row to the delta its client gets. Decides nothing, keeps what spans chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tramontane.engine.runner import StepResult
from tramontane.errors import TramontaneError
from tramontane.requests import Delta, EngineRequest, FinishReason, Task, TokenLogprobs
from tramontane.sequence import Row, Sequence


def ended(seq: Sequence, reason: FinishReason, error: str | None = None) -> Delta:
    """The delta of a sequence that ends without a further token."""
    return Delta(request_id=seq.request.id, index=seq.index, finish_reason=reason, error=error)


def refused(
    request: EngineRequest, reason: FinishReason, error: str | None = None, code: str | None = None
) -> list[Delta]:
    """The deltas of a request that ends before it has sequences."""
    return [
        Delta(request_id=request.id, index=index, finish_reason=reason, error=error, error_code=code)
        for index in range(request.sampling.n)
    ]


def refusal(request: EngineRequest, error: BaseException) -> list[Delta]:
    """The deltas of a request that is not served for a reason."""
    code = error.code if isinstance(error, TramontaneError) else None
    return refused(request, FinishReason.ERROR, describe(error), code)


def describe(error: BaseException) -> str:
    """What a client may read about a failure: our own messages as they are, of others only the kind (their text may
    hold addresses and paths; the log has all of it)."""
    if isinstance(error, TramontaneError):
        return str(error)
    return f"the step failed with {type(error).__name__}; the log has the details"


def sampled(seq: Sequence, token: int, reason: FinishReason | None) -> Delta:
    """The delta of a plain sampled token."""
    return Delta(
        request_id=seq.request.id,
        index=seq.index,
        token_ids=(token,),
        finish_reason=reason,
        stop_token=token if reason is FinishReason.STOP else None,
        cached_tokens=_cached(seq),
    )


def sampled_with(
    seq: Sequence,
    tokens: list[int],
    reason: FinishReason | None,
    logprobs: TokenLogprobs | None,
    prompt: list[Any] | None,
) -> Delta:
    """The delta of a sampled token, with those its grammar forces after it, or with log-probabilities of itself or of
    the prompt."""
    return Delta(
        request_id=seq.request.id,
        index=seq.index,
        token_ids=tuple(tokens),
        logprobs=() if logprobs is None else (logprobs,),
        finish_reason=reason,
        stop_token=tokens[-1] if reason is FinishReason.STOP and _ends(seq, tokens[-1]) else None,
        cached_tokens=_cached(seq),
        prompt_logprobs=None if prompt is None else (None, *prompt),
    )


def _ends(seq: Sequence, token: int) -> bool:
    """Whether a token is no part of the text but its end. A grammar may end a text without one."""
    return token in seq.stop_ids or (seq.grammar is not None and token in seq.request.eos_token_ids)


def gather(row: Row, index: int, result: StepResult) -> Delta | None:
    """Keep what a prompt chunk brought; the finished task's delta once the prompt has been read to its end.

    Returns:
        ``None`` while chunks are missing, and for generating requests, whose prompt log-probabilities go out with the
        first token.
    """
    seq = row.seq
    if seq.generates:
        seq.collected += result.prompt_logprobs.get(index, ())
    elif index in result.outputs:
        seq.collected.append(result.outputs[index])
    if row.start + row.count < seq.prompt_len:
        return None
    seq.wants_all = False
    if seq.generates:
        return None
    output = np.concatenate(seq.collected) if seq.request.task is Task.LOGITS else seq.collected[-1]
    return Delta(request_id=seq.request.id, index=seq.index, finish_reason=FinishReason.STOP, output=output)


def _cached(seq: Sequence) -> int:
    """Prompt tokens from the prefix cache, told once."""
    if seq.answered:
        return 0
    seq.answered = True
    return seq.cached_tokens
