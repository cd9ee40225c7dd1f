# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of their own: what crashes, hangs or spoils the card's context costs one job and not the rest.

A *worker* is any process that goes through a list of named jobs and notes in a file which it has begun, what they gave,
which it has ended, and that it came to the end of the list. The supervisor starts it, watches the file, and ends it
where a job takes too long; after that, or when it died, it starts another one that leaves out what was done. It knows
neither torch nor what the jobs are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field, frozen

EVENTS = "TRAMONTANE_BENCH_EVENTS"
"""Environment variable of a worker: the file in which it notes what happens."""
SKIP = "TRAMONTANE_BENCH_SKIP"
"""The file that holds the names of jobs to leave out, as JSON."""
SPOILED = 3
"""Exit status of a worker that can do no more jobs, while another could."""
START_S = 120.0
"""What a worker may take to its first job."""


@frozen
class Notes:
    """What a worker writes."""

    path: Path

    @classmethod
    def here(cls) -> Notes | None:
        """Those of this process, if it is a worker."""
        return cls(Path(os.environ[EVENTS])) if EVENTS in os.environ else None

    @staticmethod
    def skipped() -> frozenset[str]:
        """Jobs that other workers have done."""
        path = os.environ.get(SKIP)
        return frozenset(json.loads(Path(path).read_text(encoding="utf-8"))) if path else frozenset()

    def write(self, kind: str, what: Any) -> None:
        """One event: ``begin`` or ``end`` with a job's name, ``line`` with a result, ``finish`` after the last job."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({kind: what}) + "\n")


@frozen
class Found:
    """A result of a job, or why it has none."""

    job: str
    line: Mapping[str, Any] | None = None
    error: str = ""


@define
class Supervisor:
    """Runs the jobs of one command.

    Attributes:
        command: Starts a worker.
        environment: Added to this process's own.
        limit_s: What one job may take.
        until: When all has to be over, by ``time.monotonic``.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    limit_s: float
    until: float
    _done: list[str] = field(factory=list, init=False)
    _current: str = field(default="", init=False)
    """The job that is running."""
    _finished: bool = field(default=False, init=False)

    def results(self) -> Iterator[Found]:
        """Results as they come; the jobs that failed among them."""
        idle = 0
        while idle < 2:
            before = len(self._done)
            finished = yield from self._one_worker()
            if finished:
                return
            idle = 0 if len(self._done) > before else idle + 1
        yield Found("the worker", error="it ended twice without a job done; the rest was not run")

    def _one_worker(self) -> Generator[Found, None, bool]:
        """Until a worker ends; returns whether nothing is left to do."""
        with TemporaryDirectory() as folder:
            events, skip, said = (Path(folder) / name for name in ("events", "skip", "said"))
            events.touch()
            skip.write_text(json.dumps(self._done), encoding="utf-8")
            environment = {**os.environ, **self.environment, EVENTS: str(events), SKIP: str(skip)}
            with said.open("wb") as output:
                worker = subprocess.Popen(
                    list(self.command), env=environment, stdout=output, stderr=output, start_new_session=True
                )
            try:
                reason = yield from self._watch(worker, events)
            finally:
                _end(worker)
            if reason:
                return reason == "no time left"
            if self._finished:
                return True
            if worker.returncode != SPOILED:
                last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
                yield from self._failed(f"exit status {worker.returncode}: " + " | ".join(last)[-600:])
            return False

    def _watch(self, worker: subprocess.Popen[bytes], events: Path) -> Generator[Found, None, str]:
        """Read events until the worker ends; returns why it had to be ended, or nothing."""
        self._current, began, read = "", time.monotonic(), 0
        while True:
            running = worker.poll() is None
            text = events.read_text(encoding="utf-8")
            whole = text[read : text.rfind("\n") + 1]
            read += len(whole)
            for event in map(json.loads, whole.splitlines()):
                began = time.monotonic()
                if "begin" in event:
                    self._current = event["begin"]
                elif "line" in event:
                    yield Found(self._current, line=event["line"])
                elif "finish" in event:
                    self._finished = True
                else:
                    self._done.append(self._current)
                    self._current = ""
            if not running and not whole:
                return ""
            now = time.monotonic()
            if now > self.until:
                yield from self._failed("no time left")
                return "no time left"
            if now - began > (self.limit_s if self._current else START_S):
                yield from self._failed(f"took more than {self.limit_s:.0f} s")
                return "too long"
            if running and not whole:
                time.sleep(0.1)

    def _failed(self, why: str) -> Iterator[Found]:
        """Blame the job that was running."""
        job, self._current = self._current, ""
        if job:
            self._done.append(job)
        yield Found(job or "the worker", error=why)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End a worker and what it started."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def alive(device: str) -> bool:
    """Whether the card still answers: after an error in a kernel every call of that process fails."""
    import torch

    if not device.startswith("cuda"):
        return True
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
