# SPDX-License-Identifier: Apache-2.0
"""The engine core: requests in, one batch of deltas per step out.

It owns the loop body (plan, launch, read, report) and what a failure costs: a step that fails ends the requests in it
and nothing else. It never sees text, and runs in whatever thread calls it; :mod:`tramontane.engine.thread` gives it
one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from attrs import define, evolve

from tramontane.cache.manager import CacheManager
from tramontane.engine.config import EngineConfig
from tramontane.engine.departures import Departures
from tramontane.engine.gate import Gate
from tramontane.engine.intake import check_request
from tramontane.engine.outputs import describe, ended, gather, refusal, refused, sampled, sampled_with
from tramontane.engine.pace import Pace
from tramontane.engine.runner import Pending, Runner, StepResult
from tramontane.engine.stats import EngineStats
from tramontane.errors import OutOfMemoryError, RequestError
from tramontane.grammar.compiler import GrammarCompiler
from tramontane.requests import Delta, EngineRequest, FinishReason, Task
from tramontane.scheduler import Scheduler
from tramontane.sequence import Row, Sequence, Status, StepPlan

log = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds that an engine with nothing else to do waits for a grammar before it looks for news.
_GRAMMAR_WAIT = 0.005


@define(eq=False)
class _Flight:
    """A launched step that has not been read."""

    plan: StepPlan
    pending: Pending


class EngineCore:
    """Drives one runner.

    Args:
        runner: Executes the steps.
        config: Limits and switches.
        grammars: Compiles what outputs must match; without it such requests are refused.

    Not thread-safe, but for :meth:`check` and :meth:`stats`.

    Raises:
        OutOfMemoryError: The cache cannot hold even the shortest sequence.
    """

    def __init__(
        self, runner: Runner, config: EngineConfig | None = None, grammars: GrammarCompiler | None = None
    ) -> None:
        self.runner = runner
        self.config = config or EngineConfig()
        self.max_len = runner.cache_layout.longest(runner.num_blocks, runner.max_model_len)
        """Most tokens of a sequence, by the model and by the cache."""
        if self.max_len < 2:
            raise OutOfMemoryError(
                f"a cache of {runner.num_blocks} blocks cannot hold a sequence of two tokens",
                hint="give the engine more --kv-memory",
            )
        self.cache, self.scheduler = self._fresh()
        self.gate = Gate(grammars)
        self.departures = Departures()
        self.pace = Pace(self.config.prompt_seconds, self.config.max_batched_tokens)
        self._flight: _Flight | None = None
        self._waiting_deltas: list[Delta] = []
        self._read_at = 0.0
        self._steps = self._failed = self._requests = self._prompt_tokens = self._sampled = 0

    def _fresh(self) -> tuple[CacheManager, Scheduler]:
        """An empty cache and its scheduler."""
        cache = CacheManager(
            self.runner.cache_layout,
            self.runner.num_blocks,
            max_seqs=self.config.max_num_seqs,
            max_tokens=self.max_len,
            prefix_cache=self.config.prefix_cache,
            snapshots=self.config.state_snapshots,
        )
        return cache, Scheduler(cache, self.config, max_len=self.max_len, listener=self.runner)

    # --- requests -----------------------------------------------------------------------------------------------------

    def check(self, request: EngineRequest) -> None:
        """Refuse a request that can never run; safe from any thread.

        Raises:
            RequestError: No tokens, ids outside the vocabulary, or an adapter that is not loaded.
            PromptTooLongError: Longer than the model or the cache can hold.
            GrammarError: The model cannot be constrained.
        """
        check_request(request, self.runner.vocab_size, self.max_len)
        self.runner.check(request)
        self.gate.check(request)

    def add(self, request: EngineRequest) -> None:
        """Queue a request.

        Raises:
            RequestError: As :meth:`check`, or a request of that id is being served.
            PromptTooLongError: As :meth:`check`.
            GrammarError: As :meth:`check`, or too many grammars wait to be compiled.
        """
        self.check(request)
        request = request if request.arrival else evolve(request, arrival=time.monotonic())
        if request.id in self.gate:
            raise RequestError(f"a request with id {request.id!r} is being served already")
        if request.sampling.constraint is not None and request.task is Task.GENERATE:
            self.gate.add(request)
        else:
            self.scheduler.add(request)
        self._requests += 1

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one of its choices. The next step reports it as canceled. Unknown ids are no error: the
        request may have ended just now."""
        if request_id in self.gate and (request := self.gate.drop(request_id)) is not None:
            self._waiting_deltas += refused(request, FinishReason.CANCELED)
        for seq in list(self.scheduler.requests.get(request_id, ())):
            if seq.status is not Status.FINISHED and index in (None, seq.index):
                self.scheduler.finish(seq)
                self._waiting_deltas.append(ended(seq, FinishReason.CANCELED))

    def abort_all(self) -> None:
        """End every request."""
        for request in self.gate.clear():
            self._waiting_deltas += refused(request, FinishReason.CANCELED)
        for request_id in list(self.scheduler.requests):
            self.abort(request_id)

    def serves(self, request_id: str) -> bool:
        """Whether a request has not ended."""
        return request_id in self.scheduler.requests or request_id in self.gate

    @property
    def has_work(self) -> bool:
        """Whether a further step has something to do or to report."""
        return bool(self.scheduler.requests or self._flight or self._waiting_deltas or self.gate)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes: weights or adapters changed."""
        self.cache.reset()

    def exchange(self, change: Callable[[], Result]) -> Result:
        """Change the weights between two steps, and go on with them.

        The step in flight is read first. What was computed with the old weights is forgotten: running sequences keep
        their tokens and compute their keys and values anew.

        Raises:
            Exception: As ``change``; requests go on with the weights there are then.
        """
        flight, self._flight = self._flight, None
        if flight:
            self._retire(flight, self._waiting_deltas)
        self.scheduler.preempt_all()
        try:
            return change()
        finally:
            self.reset_prefix_cache()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def step(self) -> list[Delta]:
        """Plan a step, run it, report it."""
        deltas = self._take_waiting()
        plan = self._plan(deltas)
        flight = self._launch(plan, deltas) if plan else None
        if flight:
            self._retire(flight, deltas)
        return deltas

    def overlap_step(self) -> list[Delta]:
        """Plan and launch a step before the tokens of the one before it are read; then read and report that one."""
        deltas = self._take_waiting()
        plan = self._plan(deltas)
        flight, self._flight = self._flight, self._launch(plan, deltas) if plan else None
        if flight:
            self._retire(flight, deltas)
        return deltas

    def next_deltas(self) -> list[Delta]:
        """One step, as configured."""
        deltas = self.overlap_step() if self.config.overlap else self.step()
        if self.departures:
            self.see_off()
        return deltas

    def see_off(self) -> None:
        """Free the adapters that were unloaded and that nothing uses any more."""
        running = (choices[0].request for choices in self.scheduler.requests.values())
        self.departures.settle((*running, *self.gate))

    def _take_waiting(self) -> list[Delta]:
        deltas, self._waiting_deltas = self._waiting_deltas, []
        return deltas

    def _plan(self, deltas: list[Delta]) -> StepPlan | None:
        if self.gate:
            self._admit(deltas)
        plan = self.scheduler.schedule(self.pace.prompt_cap())
        failures = self.scheduler.take_failures()
        for seq, error in failures:
            log.error("request %s cannot start", seq.request.id, exc_info=error)
            self._end_request(seq, describe(error), deltas)
        if plan is None and self._flight is None and self.scheduler.requests and not failures:
            self._unblock(deltas)
        return plan

    def _admit(self, deltas: list[Delta]) -> None:
        """Queue the requests whose grammar is ready, and report those whose grammar was refused."""
        if not (self.scheduler.requests or self._flight or deltas):
            self.gate.wait(_GRAMMAR_WAIT)
        for request, outcome in self.gate.ready():
            if isinstance(outcome, BaseException):
                deltas += refusal(request, outcome)
            else:
                self.scheduler.add(request, outcome)

    def _launch(self, plan: StepPlan, deltas: list[Delta]) -> _Flight | None:
        if self._flight is None:
            self._read_at = time.perf_counter()
        try:
            return _Flight(plan, self.runner.launch(plan))
        except Exception as error:
            self._fail(plan, error, deltas)
            return None

    def _retire(self, flight: _Flight, deltas: list[Delta]) -> None:
        plan = flight.plan
        try:
            result = flight.pending.result()
        except Exception as error:
            self._fail(plan, error, deltas)
            return
        now = time.perf_counter()
        self.pace.observe(plan.tokens, plan.prompt_tokens, now - self._read_at)
        self._read_at = now
        self._steps += 1
        self._prompt_tokens += plan.prompt_tokens
        self._report(plan.rows, result, deltas)

    def _report(self, rows: list[Row], result: StepResult, deltas: list[Delta]) -> None:
        """Turn a step's results into deltas."""
        scheduler, token_ids = self.scheduler, result.token_ids
        plain = not (result.logprobs or result.faults)
        sample = -1
        for index, row in enumerate(rows):
            seq = row.seq
            sample += row.samples
            if not scheduler.landed(row):
                continue
            if row.samples and plain and not row.all_outputs and seq.grammar is None:
                token = token_ids[sample]
                reason = scheduler.append(seq, token)
                deltas.append(sampled(seq, token, reason))
                self._sampled += 1
                if reason is not None:
                    scheduler.finish(seq)
            else:
                self._report_special(row, index, sample, result, deltas)

    def _report_special(self, row: Row, index: int, sample: int, result: StepResult, deltas: list[Delta]) -> None:
        """The rows with more than a token, or less: tasks, log-probabilities, prompt chunks, faults."""
        seq = row.seq
        if row.all_outputs:
            delta = gather(row, index, result)
            if delta is not None:
                self.scheduler.finish(seq)
                deltas.append(delta)
        if not row.samples:
            return
        if sample in result.faults:
            self._end_request(seq, result.faults[sample], deltas)
            return
        if row.start + row.count < len(seq.tokens):
            return  # its grammar forced the token, and it was reported, while this step was in flight
        tokens, reason = self._append(seq, sample, result)
        prompt = seq.collected if row.all_outputs else None
        deltas.append(sampled_with(seq, tokens, reason, result.logprobs.get(sample), prompt))
        self._sampled += len(tokens)
        if reason is not None:
            self.scheduler.finish(seq)

    def _append(self, seq: Sequence, sample: int, result: StepResult) -> tuple[list[int], FinishReason | None]:
        """Note a sampled token and those that its grammar forces after it; which were kept, and what they end."""
        tokens = [result.token_ids[sample]]
        reason = self.scheduler.append(seq, tokens[0])
        forced = result.forced.get(sample, ())
        for token in forced:
            if reason is not None:
                break
            tokens.append(token)
            reason = self.scheduler.append(seq, token, forced=True)
        if sample in result.ended and len(tokens) == 1 + len(forced):
            reason = FinishReason.STOP  # complete, even where it is as long as it may be
        return tokens, reason

    # --- failures -----------------------------------------------------------------------------------------------------

    def _fail(self, plan: StepPlan, error: Exception, deltas: list[Delta]) -> None:
        """End the requests of a step that failed."""
        self._failed += 1
        log.error("step %d with %d rows failed", plan.serial, len(plan.rows), exc_info=error)
        alive = [row.seq for row in plan.rows if self.scheduler.landed(row, computed=False)]
        for seq in alive:
            self._end_request(seq, describe(error), deltas)

    def recover(self, error: BaseException) -> list[Delta]:
        """Begin anew after a fault of the engine's own bookkeeping: end every request, forget every block."""
        log.critical("the engine failed and begins anew", exc_info=error)
        deltas = self._take_waiting()
        sequences = [seq for choices in self.scheduler.requests.values() for seq in choices]
        for request in self.gate.clear():
            deltas += refused(request, FinishReason.ERROR, describe(error))
        deltas += [ended(s, FinishReason.ERROR, describe(error)) for s in sequences if s.status is not Status.FINISHED]
        flight, self._flight = self._flight, None
        if flight:
            with suppress(Exception):
                flight.pending.result()
        for seq in [*sequences, *([row.seq for row in flight.plan.rows] if flight else [])]:
            if seq.slot >= 0:
                with suppress(Exception):
                    self.runner.dropped(seq)
                seq.cache.slot = -1
        self.cache, self.scheduler = self._fresh()
        return deltas

    def _unblock(self, deltas: list[Delta]) -> None:
        """End the request at the head of the line: nothing runs, nothing is in flight, and still nothing fits."""
        seq = self.scheduler.first
        if seq is not None:
            log.error("request %s cannot make progress; %s", seq.request.id, self.stats())
            self._end_request(seq, "the cache has no room for this request", deltas)

    def _end_request(self, seq: Sequence, error: str, deltas: list[Delta]) -> None:
        for one in list(self.scheduler.requests.get(seq.request.id, ())):
            if one.status is not Status.FINISHED:
                self.scheduler.finish(one)
                deltas.append(ended(one, FinishReason.ERROR, error))

    # --- looking in ---------------------------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """How the engine is doing."""
        pool, cache = self.cache.pool, self.cache.stats
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=self.scheduler.queued,
            blocks=pool.num_blocks - 1,
            blocks_used=pool.used,
            blocks_cached=pool.published,
            evictions=pool.evictions,
            prefix_queries=cache.queries,
            prefix_hits=cache.hits,
            preemptions=self.scheduler.preemptions,
            steps=self._steps,
            failed_steps=self._failed,
            requests=self._requests,
            prompt_tokens=self._prompt_tokens,
            sampled_tokens=self._sampled,
            step_s=self.pace.step_s,
            decode_s=self.pace.decode_s,
            tokens_per_s=self.pace.tokens_per_s,
        )

    def check_integrity(self) -> None:
        """Check all bookkeeping; only when no step is in flight.

        Raises:
            RuntimeError: Something does not add up.
        """
        self.scheduler.check_integrity()
