# SPDX-License-Identifier: Apache-2.0
"""The engines as the rotation sees them: ``measure(test) -> tokens per second``.

Ours and mistralrs stay loaded in processes of their own between measurements; llama.cpp is its own ``llama-bench``,
which maps its file anew in a second or two.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field, frozen
from environment import PYTHON, tool

WORKERS = Path(__file__).parent / "workers"


@frozen
class Test:
    """Prefill of ``tokens`` tokens (``pp``), or decoding as many (``tg``) after ``depth`` tokens."""

    kind: str
    tokens: int
    depth: int = 0

    @property
    def name(self) -> str:
        """llama-bench's."""
        return f"{self.kind}{self.tokens}" + (f"@d{self.depth}" if self.depth else "")


class Engine(Protocol):
    """One engine with one model."""

    name: str
    peak: int
    """Largest resident size seen, bytes."""

    def measure(self, test: Test) -> float:
        """Tokens per second."""
        ...

    def measure_work(self, test: Test) -> float:
        """Tokens per second of processor time: of use with one thread, on a machine that others load."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@define
class Worker:
    """An engine in a process that answers line by line."""

    name: str
    command: list[str]
    threads: int
    peak: int = 0
    ready_s: float = field(default=0.0, init=False)
    """From the start of the process to a first token."""
    _process: subprocess.Popen[str] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        environment = {**os.environ, **_threads(self.threads)}
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready_s = self._answer()["ready"]

    def measure(self, test: Test) -> float:
        """Tokens per second."""
        return float(self.ask(test=test.kind, tokens=test.tokens, depth=test.depth)["rate"])

    def measure_work(self, test: Test) -> float:
        """Tokens per second of processor time."""
        before = self._work()
        self.measure(test)
        return test.tokens / (self._work() - before)

    def _work(self) -> float:
        """Seconds of processor time of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, **what: Any) -> dict[str, float]:
        """One line there and back."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                self.peak = max(self.peak, int(found.get("peak", 0)))
                return found
        sys.exit(f"{self.name} ended without an answer")


@define
class LlamaBench:
    """``llama-bench``, one process a measurement."""

    model: Path
    threads: int
    name: str = "llama.cpp"
    peak: int = 0

    def measure(self, test: Test) -> float:
        """Tokens per second, of one repetition after its own warming up."""
        return float(json.loads(self._run(test, 1))[0]["avg_ts"])

    def measure_work(self, test: Test) -> float:
        """Tokens per second of processor time: what one more repetition takes."""
        before = _children()
        self._run(test, 1)
        between = _children()
        self._run(test, 3)
        return 2 * test.tokens / max(1e-3, (_children() - between) - (between - before))

    def _run(self, test: Test, repetitions: int) -> str:
        sizes = ("-p", test.tokens, "-n", 0) if test.kind == "pp" else ("-p", 0, "-n", test.tokens)
        command = [tool("llama-bench"), "-m", self.model, "-t", self.threads, *sizes, "-d", test.depth]
        command += ["-r", repetitions, "-o", "json"]
        found = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
        self.peak = max(self.peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
        return found.stdout

    def close(self) -> None:
        """Nothing is held."""


def _children() -> float:
    """Seconds of processor time of ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processors() -> int:
    """Threads to use by default: as many processors as this process may run on."""
    return len(os.sched_getaffinity(0))


def ours(model: Path, threads: int, longest: int) -> Worker:
    """This engine."""
    return Worker("tramontane", [sys.executable, str(WORKERS / "ours.py"), str(model), str(longest)], threads)


def mistralrs(model: Path, threads: int) -> Worker:
    """The mistralrs wheel."""
    return Worker("mistralrs", [str(PYTHON), str(WORKERS / "mistral.py"), str(model)], threads)


def _threads(count: int) -> dict[str, str]:
    names = ("TRAMONTANE_CPU_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(count))
