# SPDX-License-Identifier: Apache-2.0
"""Which tokens run in the next step, and when a sequence has ended.

There is one rule: computed tokens catch up with known tokens, under a budget. A new prompt is a sequence far behind, a
decoding one is behind by one, a prefix hit is a head start and a preemption a fall back to zero. Running sequences go
first, decoding ones before prompts; then waiting ones are admitted, by priority and arrival.

A sequence may be planned before its latest token was read (``pending``), and may leave while a step in flight still
writes to its blocks: then they are taken back when that step retires. No clock, no tensor and no text is known here.

A sequence's life: ``add`` -> (``schedule`` -> ``landed`` -> ``append``)* -> ``finish``.
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

from attrs import define, field

from tramontane.cache.manager import CacheManager, Hit
from tramontane.engine.config import EngineConfig
from tramontane.engine.intake import make_sequences
from tramontane.engine.runner import Listener
from tramontane.errors import RequestError
from tramontane.requests import EngineRequest, FinishReason
from tramontane.sequence import Row, Sequence, Status, StepPlan

if TYPE_CHECKING:
    from tramontane.grammar.compiler import Compiled

_ORDER = attrgetter("order")


def _reading(seq: Sequence) -> bool:
    """Whether a sequence reads its prompt; one that has tokens forced upon it decodes, and goes first."""
    return seq.computed < seq.prompt_len


@define
class _Step:
    """A plan in the making."""

    budget: int
    rows: list[Row] = field(factory=list)
    samples: int = 0
    outputs: int = 0
    prompt_tokens: int = 0
    loads: list[tuple[int, int]] = field(factory=list)
    saves: list[tuple[int, int]] = field(factory=list)


class Scheduler:
    """Plans the steps of one engine.

    Args:
        cache: Where the sequences' blocks come from.
        config: Budgets and limits.
        max_len: Most tokens of a sequence, by the model and by the cache.
        listener: Is told when sequences take and give up their slot.
    """

    def __init__(self, cache: CacheManager, config: EngineConfig, *, max_len: int, listener: Listener) -> None:
        self.cache = cache
        self.config = config
        self.max_len = max_len
        self.listener = listener
        self.requests: dict[str, list[Sequence]] = {}
        """The sequences of every request that has not ended."""
        self.running: list[Sequence] = []
        """By rank, best first; the last one is preempted first."""
        self.queued = 0
        """Sequences that wait, held ones included."""
        self.preemptions = 0
        self._waiting: list[tuple[tuple[int, float, int, int], Sequence]] = []
        self._leaving = 0
        """Sequences that have left while a step in flight still holds their blocks."""
        self._blocked: tuple[Sequence, int] | None = None
        """The waiting sequence that did not fit, and the free blocks there were."""
        self._failures: list[tuple[Sequence, Exception]] = []
        self._admitted = 0
        self._serial = 0

    # --- coming and going ---------------------------------------------------------------------------------------------

    def add(self, request: EngineRequest, grammar: Compiled | None = None) -> None:
        """Queue a checked request, one sequence per choice. Further choices are held until the first one has computed
        the prompt, so that they find its blocks.

        Raises:
            RequestError: A request of that id is being served.
        """
        if request.id in self.requests:
            raise RequestError(f"a request with id {request.id!r} is being served already")
        self._admitted += 1
        sequences = make_sequences(request, self._admitted, self.cache, self.max_len, grammar)
        self.requests[request.id] = sequences
        self.queued += len(sequences)
        self._enqueue(sequences[0])
        if self.cache.prefix_cache:
            sequences[0].held = sequences[1:]
        else:
            self._release_held(sequences[1:])

    def finish(self, seq: Sequence) -> None:
        """A sequence has ended. Its blocks come back now, or with the last step in flight that has a row of it."""
        if seq.status is Status.FINISHED:
            return
        ran = seq.status is Status.RUNNING
        seq.status = Status.FINISHED
        if ran:
            self.running.remove(seq)
            if seq.in_flight:
                self._leaving += 1
            else:
                self._take_back(seq)
        else:
            self.queued -= 1
        held, seq.held = seq.held, []
        self._release_held(held)
        siblings = self.requests.get(seq.request.id, [])
        if all(one.status is Status.FINISHED for one in siblings):
            self.requests.pop(seq.request.id, None)

    def _release_held(self, held: list[Sequence]) -> None:
        for seq in held:
            if seq.status is Status.HELD:
                self._enqueue(seq)

    def _enqueue(self, seq: Sequence) -> None:
        seq.status = Status.WAITING
        heappush(self._waiting, (seq.order, seq))

    def _take_back(self, seq: Sequence) -> None:
        self.listener.dropped(seq)
        self.cache.free(seq.cache)
        seq.computed = 0

    def _preempt(self, seq: Sequence) -> None:
        """Take a running sequence's blocks, now or when its step in flight retires. It will be recomputed."""
        self.running.remove(seq)
        self.queued += 1
        self.preemptions += 1
        seq.preemptions += 1
        seq.status = Status.PREEMPTED
        if seq.in_flight:
            self._leaving += 1
        else:
            self._requeue(seq)

    def preempt_all(self) -> None:
        """Let every running sequence begin anew: what it has computed is no longer what would be computed. Only when
        no step is in flight."""
        for seq in reversed(list(self.running)):
            self._preempt(seq)

    def _requeue(self, seq: Sequence) -> None:
        self._take_back(seq)
        if seq.wants_all:
            seq.collected.clear()
        self._enqueue(seq)

    # --- planning -----------------------------------------------------------------------------------------------------

    def schedule(self, prompt_cap: int) -> StepPlan | None:
        """Plan the next step; ``None`` if nothing can run before a step in flight retires, or nothing is there.

        Args:
            prompt_cap: Most prompt tokens of this step if it also decodes.
        """
        step = _Step(self.config.max_batched_tokens)
        prompts = self._plan_decodes(step)
        cap = min(step.budget, prompt_cap, self.config.max_prompt_tokens) if step.rows else step.budget
        prompts.sort(key=_reading)
        for place, seq in enumerate(prompts):
            if cap > 0 and seq.status is Status.RUNNING:
                newer = [one for one in prompts[place + 1 :] if one.order > seq.order]
                cap -= self._plan_prompt(step, seq, cap, newer)
        if cap > 0 and self.queued:
            self._admit(step, cap)
        if not step.rows:
            return None
        self._serial += 1
        return StepPlan(
            serial=self._serial,
            rows=step.rows,
            tokens=self.config.max_batched_tokens - step.budget,
            samples=step.samples,
            outputs=step.outputs,
            prompt_tokens=step.prompt_tokens,
            tables=self.cache.tables,
            state_loads=step.loads,
            state_saves=step.saves,
        )

    def _plan_decodes(self, step: _Step) -> list[Sequence]:
        """Give every sequence that is one token behind its row; return those that are further behind."""
        prompts = []
        rows, samples = step.rows, 0
        for seq in self.running:  # preemption shortens the list from its end
            start, pending = seq.computed, seq.pending
            known = len(seq.tokens) + pending
            if known - start > 1 or seq.wants_all:
                prompts.append(seq)
                continue
            if known == start or (pending and known >= seq.limit):
                continue  # it ends with the step in flight
            if start >= seq.cache.capacity and not self._grow(seq):
                continue
            rows.append(Row(seq, start, 1, True, False, seq.source if pending else -1))
            seq.computed = known
            seq.pending = pending + 1
            seq.source = samples
            seq.in_flight += 1
            samples += 1
        step.samples = step.outputs = samples
        step.budget -= samples
        return prompts

    def _grow(self, seq: Sequence) -> bool:
        """Make room for one more token, at the expense of the newest sequences; ``False`` if it has to wait."""
        while not self.cache.allocate(seq.cache, seq.computed + 1):
            if self._leaving or (len(self.running) == 1 and seq.in_flight):
                return False  # blocks come back with the step in flight
            victim = self.running[-1]
            self._preempt(victim)
            if victim is seq:
                return False
        return True

    def _plan_prompt(self, step: _Step, seq: Sequence, cap: int, newer: list[Sequence]) -> int:
        """Give a prompt its next chunk of at most ``cap`` tokens; return how many it got."""
        start, known = seq.computed, len(seq.tokens)
        wanted = self.cache.chunk(seq.cache, start, min(known - start, cap))
        count = self._fit(seq, wanted, newer) if wanted > 0 else 0
        if not count:
            return 0
        samples = seq.generates and start + count == known
        row = Row(seq, start, count, samples, seq.wants_all)
        step.rows.append(row)
        step.budget -= count
        step.prompt_tokens += count
        step.outputs += count if row.all_outputs else int(samples)
        restored = self.cache.restore(seq.cache) if not seq.in_flight else None
        if restored:
            step.loads.append(restored)
        saved = self.cache.snapshot(seq.cache, start + count)
        if saved:
            step.saves.append(saved)
        seq.computed += count
        seq.in_flight += 1
        if samples:
            seq.pending = 1
            seq.source = step.samples
            step.samples += 1
        return count

    def _fit(self, seq: Sequence, count: int, newer: list[Sequence]) -> int:
        """Allocate a chunk of up to ``count`` tokens. Newer prompts without a row in this step give way; else the
        chunk shrinks; 0 if not even one token fits now."""
        while not self.cache.allocate(seq.cache, seq.computed + count):
            victim = newer.pop() if newer and not self._leaving else None
            if victim is not None and victim.status is Status.RUNNING:
                self._preempt(victim)
            elif victim is None and count > 1:
                count //= 2
            elif victim is None:
                return 0
        return count

    # --- admission ----------------------------------------------------------------------------------------------------

    def _admit(self, step: _Step, cap: int) -> None:
        """Let waiting sequences in while there are tokens, slots and blocks for all they know. Tokens are left only
        where every running prompt got all it can use, so no running sequence still lacks blocks for its prompt."""
        while cap > 0 and self._waiting and self.cache.free_slots and not self._leaving:
            seq = self._waiting[0][1]
            if seq.status is not Status.WAITING:
                heappop(self._waiting)  # it ended while it waited
                continue
            hit = self._fitting_prefix(seq)
            if hit is None:
                break
            heappop(self._waiting)
            if not self._start(seq, hit):
                continue
            cap -= self._plan_prompt(step, seq, cap, [])

    def _fitting_prefix(self, seq: Sequence) -> Hit | None:
        """The prefix to start a waiting sequence from, or ``None`` if it does not fit beside the running ones."""
        free = self.cache.pool.free
        if self._blocked is not None and self._blocked[0] is seq and free <= self._blocked[1]:
            return None
        hit = self.cache.lookup(seq.cache) if not seq.wants_all else self.cache.no_hit
        needed = self.cache.missing_blocks(hit, min(len(seq.tokens) + 1, self.max_len))
        # One block of each group for every running sequence, or the newest would be preempted at once.
        headroom = len(self.running) * len(self.cache.tables)
        if needed + headroom > free and self.running:
            self._blocked = (seq, free)
            return None
        self._blocked = None
        return hit

    def _start(self, seq: Sequence, hit: Hit) -> bool:
        self.queued -= 1
        seq.status = Status.RUNNING
        self.cache.admit(seq.cache, hit)
        seq.computed = hit.length
        if not seq.preemptions:
            seq.cached_tokens = hit.length
        insort(self.running, seq, key=_ORDER)
        try:
            self.listener.started(seq)
        except Exception as error:
            self._failures.append((seq, error))
            return False
        return True

    def take_failures(self) -> list[tuple[Sequence, Exception]]:
        """The sequences that could not start since the last call, for the caller to finish."""
        failures, self._failures = self._failures, []
        return failures

    @property
    def first(self) -> Sequence | None:
        """The sequence at the head of the line; ``None`` if nobody is there."""
        if self.running:
            return self.running[0]
        everyone = (seq for sequences in self.requests.values() for seq in sequences)
        return min((seq for seq in everyone if seq.status is not Status.FINISHED), key=_ORDER, default=None)

    # --- retiring -----------------------------------------------------------------------------------------------------

    def landed(self, row: Row, computed: bool = True) -> bool:
        """A step that was in flight has retired; call for each of its rows, in order.

        Args:
            row: One row of the step.
            computed: Whether the step succeeded.

        Returns:
            Whether the row's outputs count: its sequence has not ended meanwhile.
        """
        seq = row.seq
        seq.in_flight -= 1
        if seq.status is Status.RUNNING:
            end = row.start + row.count
            if computed and end >= seq.cache.milestone:
                self.cache.commit(seq.cache, end)
            if seq.held and end >= seq.prompt_len:
                held, seq.held = seq.held, []
                self._release_held(held)
            return True
        if not seq.in_flight:
            self._leaving -= 1
            if seq.status is Status.PREEMPTED:
                if computed:
                    self.cache.commit(seq.cache, row.start + row.count)
                self._requeue(seq)
            else:
                self._take_back(seq)
        return seq.status is not Status.FINISHED

    def append(self, seq: Sequence, token: int, forced: bool = False) -> FinishReason | None:
        """Note a sampled token, or one that its grammar forces after it, and say whether it ends the sequence (the
        caller then calls :meth:`finish`). What a step in flight samples for a forced token is known with it."""
        tokens = seq.tokens
        tokens.append(token)
        seq.pending = 0 if forced else seq.pending - 1
        if token in seq.stop_ids and len(tokens) - 1 - seq.prompt_len >= seq.request.sampling.min_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(tokens) >= seq.limit else None

    def check_integrity(self) -> None:
        """Check queues, slots and blocks against each other; only when no step is in flight.

        Raises:
            RuntimeError: They disagree.
        """
        everyone = [seq for sequences in self.requests.values() for seq in sequences]
        self.cache.check_integrity([seq.cache for seq in everyone])
        waiting = sum(seq.status is not Status.RUNNING and seq.status is not Status.FINISHED for seq in everyone)
        if waiting != self.queued or self._leaving:
            raise RuntimeError(f"{waiting} sequences wait, {self.queued} are counted; {self._leaving} are leaving")
        if [seq for seq in self.running if seq.status is not Status.RUNNING] or self.running != sorted(
            self.running, key=_ORDER
        ):
            raise RuntimeError("the running list is out of order or holds a sequence that does not run")
