# SPDX-License-Identifier: Apache-2.0
"""Compiles constraints beside the engine: one thread, a cache with a bound, limits on what a grammar may cost.

An answer is a future, so that whoever waits for a grammar holds up nobody else. Equal constraints are compiled once;
a refusal is remembered like a success.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future

import llguidance
from attrs import define, field, frozen

from tramontane.errors import GrammarError
from tramontane.grammar.constraint import Constraint, Kind
from tramontane.grammar.trial import Helper, Limits, compile_matcher
from tramontane.grammar.vocabulary import Vocabulary

_log = logging.getLogger(__name__)

MOST_CACHED = 256
"""Grammars kept ..."""
MOST_CACHED_BYTES = 8 << 20
"""... and bytes of their sources."""
MOST_WAITING = 512
"""Grammars that may wait to be compiled."""
_STACK = 16 << 20
_IDLE_SECONDS = 60.0
"""The thread and the helper process end after this time without work."""
_CLOSED = "the model is being closed"


@frozen(eq=False)
class Compiled:
    """A grammar that is ready for one vocabulary."""

    vocabulary: Vocabulary
    _first: llguidance.LLMatcher

    def matcher(self) -> llguidance.LLMatcher:
        """A matcher at the beginning."""
        return self._first.deep_copy()


@define(eq=False)
class GrammarCompiler:
    """Compiles constraints for one model. Any thread may call it.

    Args:
        vocabulary: Makes the model's vocabulary; called once, in the compiling thread.
        limits: What a grammar may cost.
    """

    vocabulary: Callable[[], Vocabulary]
    limits: Limits = field(factory=Limits)
    _cache: OrderedDict[Constraint, Future[Compiled]] = field(factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)
    _queue: deque[Constraint] = field(factory=deque, init=False)
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    """The last one that was started."""
    _working: bool = field(default=False, init=False)
    """Whether it takes from the queue; else it ends, or has ended."""
    _helper: Helper | None = field(default=None, init=False)
    """Of the thread; :meth:`close` hurries it."""
    _closed: bool = field(default=False, init=False)
    _built: tuple[Vocabulary, llguidance.LLTokenizer] | None = field(default=None, init=False)

    def compile(self, constraint: Constraint) -> Future[Compiled]:
        """The compiled constraint, now or later; the future may hold a :class:`GrammarError`.

        Raises:
            GrammarError: Too many grammars wait already, or the model is being closed.
        """
        with self._changed:
            found = self._cache.get(constraint)
            if found is not None:
                self._cache.move_to_end(constraint)
                return found
            if self._closed:
                raise GrammarError(_CLOSED)
            if len(self._queue) >= MOST_WAITING:
                raise GrammarError(f"{MOST_WAITING} grammars wait to be compiled already", hint="try again later")
            future: Future[Compiled] = Future()
            self._remember(constraint, future)
            self._queue.append(constraint)
            if not self._working:
                self._thread, self._working = _start(self._run), True
            self._changed.notify()
            return future

    def close(self) -> None:
        """End the thread and its process, and forget everything. May be called again.

        What is being compiled fails; the process is waited for, so that none is left behind.
        """
        with self._changed:
            self._closed = True
            thread, helper = self._thread, self._helper
            self._changed.notify()
        if helper is not None:
            helper.hurry()
        if thread is not None:
            thread.join()

    def _remember(self, constraint: Constraint, future: Future[Compiled]) -> None:
        """Cache an entry at the expense of the ones unused longest. Whoever waits for one of these holds its future."""
        self._cache[constraint] = future
        self._bytes += _size(constraint)
        while len(self._cache) > MOST_CACHED or self._bytes > MOST_CACHED_BYTES:
            oldest = next((one for one, entry in self._cache.items() if entry.done()), None)
            if oldest is None:
                return
            del self._cache[oldest]
            self._bytes -= _size(oldest)

    def _run(self) -> None:
        """The thread: compile what waits, and end when nothing came for a while."""
        helper: Helper | None = None
        try:
            while (constraint := self._next()) is not None:
                with self._changed:
                    future = self._cache[constraint]
                try:
                    vocabulary, tokenizer = self._vocabulary()
                    helper = helper or self._make_helper(vocabulary)
                    if constraint.kind is not Kind.JSON_OBJECT:  # that grammar is our own
                        helper.check(constraint)
                    matcher = compile_matcher(constraint, tokenizer, vocabulary.eos_ids, self.limits)
                    future.set_result(Compiled(vocabulary, matcher))
                except GrammarError as error:
                    future.set_exception(GrammarError(_CLOSED) if self._closed else error)
                except BaseException as error:  # the library's panics are no Exceptions
                    _log.warning("a grammar cannot be compiled", exc_info=error)
                    future.set_exception(GrammarError(f"the grammar cannot be compiled ({type(error).__name__})"))
        finally:
            if helper is not None:
                helper.stop()

    def _make_helper(self, vocabulary: Vocabulary) -> Helper:
        """A helper that :meth:`close` knows of."""
        with self._changed:
            if self._closed:
                raise GrammarError(_CLOSED)
            self._helper = Helper(vocabulary, self.limits)
            return self._helper

    def _next(self) -> Constraint | None:
        """The next constraint to compile; ``None`` when the thread is to end."""
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait(_IDLE_SECONDS)
            if self._queue and not self._closed:
                return self._queue.popleft()
            self._working = False
            while self._queue:
                self._cache.pop(self._queue.popleft()).set_exception(GrammarError(_CLOSED))
            return None

    def _vocabulary(self) -> tuple[Vocabulary, llguidance.LLTokenizer]:
        if self._built is None:
            vocabulary = self.vocabulary()
            self._built = vocabulary, vocabulary.build()
        return self._built


def _size(constraint: Constraint) -> int:
    return len(constraint.value)


def _start(run: Callable[[], None]) -> threading.Thread:
    """A thread with a stack that what the helper survived cannot overflow."""
    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=run, name="tramontane-grammars", daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread
