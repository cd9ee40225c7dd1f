# SPDX-License-Identifier: Apache-2.0
"""What happens to a request before it is queued: refuse what can never run, and make its sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tramontane.cache.manager import CacheManager
from tramontane.errors import PromptTooLongError, RequestError
from tramontane.requests import EngineRequest, Task
from tramontane.sequence import NO_ADAPTER, Sequence, Status

if TYPE_CHECKING:
    from tramontane.grammar.compiler import Compiled


def check_request(request: EngineRequest, vocab_size: int, max_len: int) -> None:
    """Refuse a request that can never run.

    Args:
        request: What was asked.
        vocab_size: Ids are below this.
        max_len: Most tokens of a sequence, by the model and by the cache.

    Raises:
        RequestError: The prompt is empty, or it or a logit bias holds ids outside the vocabulary.
        PromptTooLongError: The prompt is longer than the model or the cache can hold.
    """
    ids = request.prompt_token_ids
    if not ids:
        raise RequestError("the prompt has no tokens", hint="send at least one token, such as BOS")
    generates = request.task is Task.GENERATE
    if len(ids) > max_len - generates:
        raise PromptTooLongError(
            f"the prompt has {len(ids)} tokens; model and cache hold at most {max_len - generates}"
            + (" beside one new token" if generates else ""),
            hint="shorten the prompt, or give the engine a larger --max-model-len or more --kv-memory",
        )
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError(f"token id {wrong} is not in the vocabulary of {vocab_size} tokens")
    beyond = [token for token, _ in request.sampling.logit_bias if token >= vocab_size]
    if beyond:
        raise RequestError(f"logit_bias names token {beyond[0]}, but the vocabulary has {vocab_size} tokens")


def make_sequences(
    request: EngineRequest, serial: int, cache: CacheManager, max_len: int, grammar: Compiled | None = None
) -> list[Sequence]:
    """One sequence per choice of a checked request.

    Args:
        request: What was asked.
        serial: How many requests came before: breaks ties of rank.
        cache: Opens the sequences' holdings.
        max_len: Most tokens of a sequence.
        grammar: What the output must match.
    """
    sampling, length = request.sampling, len(request.prompt_token_ids)
    generates = request.task is Task.GENERATE
    eos = () if sampling.ignore_eos else request.eos_token_ids
    stop_ids = frozenset((*eos, *sampling.stop_token_ids))
    limit = max_len if sampling.max_tokens is None else min(max_len, length + sampling.max_tokens)
    sequences = []
    for index in range(sampling.n if generates else 1):
        tokens = list(request.prompt_token_ids)
        sequences.append(
            Sequence(
                request=request,
                index=index,
                tokens=tokens,
                prompt_len=length,
                limit=limit,
                stop_ids=stop_ids,
                order=(-request.priority, request.arrival, serial, index),
                cache=cache.open(tokens, *_apart(request)),
                adapter=NO_ADAPTER if request.adapter is None else request.adapter.column,
                wants_all=not generates or (index == 0 and sampling.prompt_logprobs is not None),
                status=Status.HELD,
                grammar=grammar,
            )
        )
    return sequences


def _apart(request: EngineRequest) -> tuple[bytes, ...]:
    """What sets the cache contents of a request apart from those of others with the same tokens."""
    if request.adapter is None:
        return (request.salt,)
    return (request.salt, request.adapter.generation.to_bytes(8, "little"))
