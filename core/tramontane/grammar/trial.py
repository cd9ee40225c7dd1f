# SPDX-License-Identifier: Apache-2.0
"""A process of its own in which grammars are tried before this one compiles them.

llguidance bounds most of its work, but not all: some patterns take minutes, and long chains of references overflow the
native stack, which kills a process. So a helper compiles every new grammar first, with limits on time and memory and
with a smaller stack than here, and takes a walk through it. A helper that does not answer in time is killed and the
next one started; the engine never notices.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import llguidance
import numpy as np
from attrs import asdict, define, field, frozen

from tramontane.errors import GrammarError
from tramontane.grammar.constraint import Constraint
from tramontane.grammar.source import explained, grammar_text
from tramontane.grammar.vocabulary import Vocabulary

START_SECONDS = 60.0
"""Most seconds that a helper may take to read a vocabulary."""
_STACK = 1 << 20
"""Bytes of stack in the helper: half of what the threads that compute masks have."""
_WALK = 24
"""Tokens of the walk."""
_PR_SET_PDEATHSIG = 1
"""https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html"""


@frozen
class Limits:
    """What a grammar may cost."""

    seconds: float = 10.0
    """Of a trial: compiling, and the masks of a short walk."""
    memory: int = 1 << 30
    """Bytes that a trial may add to the helper (where the system can limit it)."""
    lexer_fuel: int = 1_000_000
    """Work on the patterns of one grammar, in llguidance's unit (about 50 000 a millisecond)."""
    step_fuel: int = 200_000
    """The same for one mask."""
    step_items: int = 50_000
    """Parser items of one mask."""
    lexer_states: int = 50_000
    """States of the patterns' automata, 1 to 2 kB each."""
    grammar_symbols: int = 200_000

    def parser(self) -> llguidance.LLParserLimits:
        """As llguidance takes them."""
        return llguidance.LLParserLimits(
            initial_lexer_fuel=self.lexer_fuel,
            step_lexer_fuel=self.step_fuel,
            step_max_items=self.step_items,
            max_lexer_states=self.lexer_states,
            max_grammar_size=self.grammar_symbols,
            verbose_errors=False,
        )


def compile_matcher(
    constraint: Constraint, tokenizer: llguidance.LLTokenizer, eos_ids: tuple[int, ...], limits: Limits
) -> llguidance.LLMatcher:
    """Compile a constraint.

    Raises:
        GrammarError: It is not valid, passes a limit, or nothing matches it.
    """
    text = grammar_text(constraint, tokenizer, eos_ids)
    matcher = llguidance.LLMatcher(tokenizer, text, log_level=0, limits=limits.parser())
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise explained(matcher.get_error())
    if matcher.is_stopped() and not matcher.is_accepting():
        raise GrammarError("nothing can match this grammar")
    return matcher


# --- the asking side ------------------------------------------------------------------------------------------------


@define(eq=False)
class Helper:
    """The helper process, started when it is first needed. For one thread, but for :meth:`hurry`."""

    vocabulary: Vocabulary
    limits: Limits = field(factory=Limits)
    _process: subprocess.Popen[str] | None = None
    _hurried: bool = field(default=False, init=False)

    def check(self, constraint: Constraint) -> None:
        """Try a constraint.

        Raises:
            GrammarError: It is refused, took too long, or the helper died of it.
        """
        process = self._process if self._process is not None and self._process.poll() is None else self._start()
        after = list(constraint.after)
        asked = json.dumps([constraint.kind, constraint.value, after, constraint.again])
        begun = time.monotonic()
        answer = self._ask(process, asked, self.limits.seconds)
        if answer is None:
            self.stop()
            if time.monotonic() - begun >= self.limits.seconds:
                raise GrammarError(f"the grammar took more than {self.limits.seconds:g} seconds to compile")
            raise GrammarError("the grammar is too large or too deep to be compiled")
        if answer:
            message, hint = json.loads(answer)
            raise GrammarError(message, hint=hint)

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def hurry(self) -> None:
        """Let what is being tried fail at once, and whatever comes after it; :meth:`stop` is still to be called. Any
        thread may call it."""
        self._hurried = True
        process = self._process
        if process is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        self.stop()
        process = subprocess.Popen(
            [sys.executable, "-m", "tramontane.grammar.trial", json.dumps(asdict(self.limits)), str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        self._process = process
        if self._hurried or self._ask(process, self.vocabulary.dumps(), START_SECONDS) is None:
            self.stop()
            raise GrammarError("the process that checks grammars does not start")
        return process

    @staticmethod
    def _ask(process: subprocess.Popen[str], line: str, seconds: float) -> str | None:
        """Send a line and read one; ``None`` if none came in time."""
        if process.stdin is None or process.stdout is None:
            return None
        alarm = threading.Timer(seconds, process.kill)
        alarm.daemon = True
        alarm.start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            return None
        finally:
            alarm.cancel()
        return answer.rstrip("\n") if answer else None


# --- the helper's side ----------------------------------------------------------------------------------------------


def _walk(matcher: llguidance.LLMatcher) -> None:
    """Take some allowed tokens at random, computing the masks between them."""
    draw = random.Random(0)
    for _ in range(_WALK):
        mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        if matcher.is_stopped() or not len(allowed) or not matcher.consume_token(int(draw.choice(allowed))):
            return


def _judge(line: str, vocabulary: Vocabulary, tokenizer: llguidance.LLTokenizer, limits: Limits) -> str:
    """An empty line, or what is wrong."""
    kind, value, after, again = json.loads(line)
    try:
        constraint = Constraint(kind=kind, value=value, after=after, again=again)
        _walk(compile_matcher(constraint, tokenizer, vocabulary.eos_ids, limits))
    except GrammarError as error:
        return json.dumps([error.message, error.hint])
    return ""


def _die_with(parent: int) -> None:
    """End when the process that asks does, and be it in the middle of a trial: who was to end that is gone.

    Other systems than Linux know no such thing; there a trial goes on to its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)


def _confine(memory: int) -> None:
    """Bound what the process may allocate from now on."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _serve(limits: Limits) -> None:
    vocabulary = Vocabulary.loads(sys.stdin.readline())
    tokenizer = vocabulary.build()
    _confine(limits.memory)
    print(flush=True)
    for line in sys.stdin:
        print(_judge(line, vocabulary, tokenizer, limits), flush=True)


def main(arguments: list[str]) -> None:
    """Serve until the other side closes the pipe, or dies."""
    _die_with(int(arguments[1]))
    limits = Limits(**json.loads(arguments[0]))
    threading.stack_size(_STACK)
    server = threading.Thread(target=_serve, args=(limits,))
    server.start()
    server.join()


if __name__ == "__main__":
    main(sys.argv[1:])
