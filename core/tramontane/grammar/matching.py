# SPDX-License-Identifier: Apache-2.0
"""Where each constrained sequence is in its grammar: the masks of the next step, and the tokens that are forced.

A token is taken as soon as it was sampled; the masks after it are computed by a thread of their own while the next
forward pass runs, and only sampling waits for them. Tokens that the grammar leaves no choice about need no mask and no
draw: they are handed back to become known tokens, which the next step computes all at once. Whether a step was planned
before its predecessor's tokens were read changes nothing: a row whose token is known already is told that token.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import llguidance
import numpy as np
import torch
from attrs import define, field
from llguidance.numpy import fill_next_token_bitmask_par
from numpy.typing import NDArray
from torch import Tensor

from tramontane.grammar.compiler import Compiled
from tramontane.grammar.source import explained
from tramontane.sequence import Sequence as Running

_HANDOVER_S = 1e-4
"""Seconds of masks that are not worth another thread: handing over takes 50 to 150 microseconds by itself."""
_MOST_FORCED = 512
"""Tokens forced at a time: what one step computes stays bounded."""


@define(eq=False)
class _Place:
    """One sequence."""

    matcher: llguidance.LLMatcher
    eos_ids: tuple[int, ...]
    length: int
    """Tokens known, prompt included; the matcher has taken all of the output among them."""
    at_once: bool
    """Forced tokens are handed back; otherwise (their log-probabilities are wanted) they are told one a step."""
    canonical: bool
    """llguidance tokenizes forced text as the model would."""
    without_eos: bool
    others: tuple[int, ...]
    """Further ids that may end the output wherever it may end."""
    queue: list[int] = field(factory=list)
    """Forced tokens that were not handed out."""
    told: tuple[int, ...] = ()
    """Forced tokens handed back last: a row planned before that may still ask for the first of them."""
    told_at: int = 0
    """Position of the first of ``told``."""
    drawn: int = 0
    """Tokens that the sampler has in its history."""
    mask_s: float = 1.0
    """Seconds that its last mask took; the first one may take long."""
    over: bool = False
    error: str | None = None


@define(eq=False)
class Taken:
    """What a step's tokens led to, by row."""

    forced: dict[int, tuple[int, ...]] = field(factory=dict)
    """Tokens that follow the sampled one without a choice."""
    ended: set[int] = field(factory=set)
    """The output is complete."""
    faults: dict[int, str] = field(factory=dict)


@define(eq=False)
class Matching:
    """The constrained sequences of one runner, by slot. For one thread."""

    vocab_size: int
    _places: dict[int, _Place] = field(factory=dict)
    _words_SW: NDArray[np.int32] = field(factory=lambda: np.zeros((0, 0), dtype=np.int32))
    _address: int = 0
    """Of the words; numpy takes a microsecond to tell it, an eighth of what many a mask takes."""
    _executor: llguidance.LLExecutor | None = None
    _pool: ThreadPoolExecutor | None = None
    _filling: list[Future[None]] = field(factory=list)

    def start(self, slot: int, compiled: Compiled, sequence: Running) -> None:
        """A sequence begins, or begins again after a preemption.

        Args:
            slot: Its row in per-sequence storage.
            compiled: Its grammar.
            sequence: Its tokens and what was asked of it.
        """
        vocabulary, sampling, length = compiled.vocabulary, sequence.request.sampling, len(sequence.tokens)
        place = _Place(
            matcher=compiled.matcher(),
            eos_ids=vocabulary.eos_ids,
            length=length,
            drawn=length,
            at_once=sampling.logprobs is None,
            canonical=vocabulary.tokenizer_json is not None,
            without_eos=sampling.ignore_eos,
            others=tuple(t for t in sequence.stop_ids if t < self.vocab_size and t not in vocabulary.eos_ids),
        )
        output = sequence.tokens[sequence.prompt_len :]
        if output and not place.matcher.consume_tokens(output):
            place.error = str(explained(place.matcher.get_error()))
        self._places[slot] = place
        self._reserve(slot, vocabulary.mask_size)
        if place.error is None:
            self._force(place)
        self._fill([slot])

    def drop(self, slot: int) -> None:
        """Forget a sequence; an unknown one is ignored."""
        self._places.pop(slot, None)

    def __len__(self) -> int:
        return len(self._places)

    def undrawn(self, slots: Sequence[int], positions: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """The forced tokens before each row's position that the sampler has not drawn; call once a step."""
        found = {}
        for slot, position in zip(slots, positions, strict=True):
            place = self._places.get(slot)
            if place is None:
                continue
            if place.drawn < position:
                found[slot] = place.told[place.drawn - place.told_at : position - place.told_at]
            place.drawn = position + 1
        return found

    def masks(
        self, slots: Sequence[int], positions: Sequence[int]
    ) -> tuple[dict[Hashable, Tensor], dict[Hashable, int]]:
        """What rows may draw.

        Args:
            slots: The rows' sequences; unconstrained ones are passed over.
            positions: The place each row's token takes in its sequence.

        Returns:
            Words of bits by slot (:meth:`tramontane.sampler.Sampler.sample`), and by slot the tokens that are certain.
        """
        self._wait()
        words: dict[Hashable, Tensor] = {}
        certain: dict[Hashable, int] = {}
        for slot, position in zip(slots, positions, strict=True):
            place = self._places.get(slot)
            if place is None:
                continue
            if position < place.length:
                certain[slot] = place.told[position - place.told_at]
            elif place.queue:
                certain[slot] = place.queue[0]
            elif place.over or place.error or place.matcher.is_error():
                certain[slot] = place.eos_ids[0] if place.eos_ids else 0
            else:
                words[slot] = torch.from_numpy(self._words_SW[slot])
        return words, certain

    def take(self, slots: Sequence[int], positions: Sequence[int], tokens: Sequence[int]) -> Taken:
        """Take in the tokens of a step, and start on the masks of the next one."""
        taken, open_slots = Taken(), []
        for row, (slot, position, token) in enumerate(zip(slots, positions, tokens, strict=True)):
            place = self._places.get(slot)
            if place is None or position < place.length:
                continue
            self._take(place, token, row, taken)
            if place.error is not None:
                taken.faults[row] = place.error
            elif place.over and not place.queue:
                taken.ended.add(row)
            elif not place.queue:
                open_slots.append(slot)
        self._fill(open_slots)
        return taken

    def _take(self, place: _Place, token: int, row: int, taken: Taken) -> None:
        place.length += 1
        if place.queue:  # the matcher has it already
            place.queue.pop(0)
        elif place.matcher.is_error():
            place.error = str(explained(place.matcher.get_error()))
        elif token in place.eos_ids or token in place.others:
            place.over = True
        elif not place.matcher.consume_token(token):
            place.error = str(explained(place.matcher.get_error()))
        if place.error is None and not place.queue and not place.over:
            self._force(place)
        if place.at_once and place.queue:
            forced, place.queue = tuple(place.queue), []
            taken.forced[row] = place.told = forced
            place.told_at = place.length
            place.length += len(forced)

    @staticmethod
    def _force(place: _Place) -> None:
        """Queue the tokens about which there is no choice, and note whether that ends the output."""
        matcher = place.matcher
        if place.canonical and not matcher.is_stopped():
            forced = matcher.compute_ff_tokens()[:_MOST_FORCED]
            if forced and matcher.consume_tokens(forced):
                place.queue = list(forced)
        if matcher.is_error():
            place.error = str(explained(matcher.get_error()))
        place.over = matcher.is_stopped()

    # --- masks --------------------------------------------------------------------------------------------------------

    def _reserve(self, slot: int, bits: int) -> None:
        rows, width = self._words_SW.shape
        words = -(-bits // 32)
        if slot < rows and words <= width:
            return
        self._wait()
        grown = np.zeros((max(slot + 1, 2 * rows, 8), max(words, width)), dtype=np.int32)
        grown[:rows, :width] = self._words_SW
        self._words_SW, self._address = grown, grown.ctypes.data

    def _fill(self, slots: Sequence[int]) -> None:
        """Compute masks beside whatever this thread does next."""
        todo = [(slot, self._places[slot]) for slot in slots]
        todo = [(slot, place) for slot, place in todo if not (place.error or place.over or place.queue)]
        if not todo:
            return
        if sum(place.mask_s for _, place in todo) < _HANDOVER_S:
            _fill_masks(None, todo, self._words_SW, self._address)
            return
        if self._pool is None or self._executor is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="tramontane-masks")
            self._executor = llguidance.LLExecutor()
            weakref.finalize(self, self._pool.shutdown, wait=False)
        self._filling.append(self._pool.submit(_fill_masks, self._executor, todo, self._words_SW, self._address))

    def _wait(self) -> None:
        filling, self._filling = self._filling, []
        for one in filling:
            one.result()


def _fill_masks(
    executor: llguidance.LLExecutor | None, todo: list[tuple[int, _Place]], words_SW: NDArray[np.int32], address: int
) -> None:
    """Fill the rows of some slots; in the thread of masks with an executor, in the engine's without."""
    row = words_SW.strides[0]
    began = time.perf_counter()
    if executor is None or len(todo) == 1:
        for slot, place in todo:
            place.matcher.unsafe_compute_mask_ptr(address + slot * row, row)
    else:
        fill_next_token_bitmask_par(executor, [(place.matcher, slot) for slot, place in todo], words_SW)
    each = (time.perf_counter() - began) / len(todo)
    for slot, place in todo:
        place.mask_s = each
        words_W = words_SW[slot]
        if not words_W.any():
            place.error = "the vocabulary has no token with which the output could go on as its grammar demands"
            continue
        if place.others and any(_get(words_W, token) for token in place.eos_ids):
            for token in place.others:
                words_W[token >> 5] |= _bit(token)
        if place.without_eos:
            before_W = words_W.copy()
            for token in place.eos_ids:
                words_W[token >> 5] &= ~_bit(token)
            if not words_W.any():  # the grammar leaves nothing but the end
                words_W[:] = before_W


def _bit(token: int) -> np.int32:
    return np.uint32(1 << (token & 31)).view(np.int32)


def _get(words_W: NDArray[np.int32], token: int) -> bool:
    return bool(words_W[token >> 5] & _bit(token))
