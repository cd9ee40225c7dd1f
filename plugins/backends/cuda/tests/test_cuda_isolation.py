# SPDX-License-Identifier: Apache-2.0
"""Jobs that crash, hang or spoil the card cost themselves and nothing else."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tramontane_backend_cuda.bench.isolation import Notes, Supervisor

WORKER = """
import os, time
from tramontane_backend_cuda.bench.isolation import SPOILED, Notes
notes, done = Notes.here(), Notes.skipped()
for name in {names}:
    if name in done:
        continue
    notes.write("begin", name)
    if name == "crashes":
        print("that was it", flush=True)
        os._exit(9)
    if name == "hangs":
        time.sleep(60)
    notes.write("line", {{"value": name}})
    notes.write("end", name)
    if name == "spoils":
        os._exit(SPOILED)
notes.write("finish", None)
"""


def found(*names: str, limit: float = 0.5, budget: float = 60) -> list[tuple[str, object]]:
    command = [sys.executable, "-c", WORKER.format(names=names)]
    one = Supervisor(command, {}, limit_s=limit, until=time.monotonic() + budget)
    return [(each.job, each.error or dict(each.line or {})["value"]) for each in one.results()]


def test_the_others_go_on() -> None:
    results = dict(found("fine", "crashes", "spoils", "hangs", "last"))
    assert list(results) == ["fine", "crashes", "spoils", "hangs", "last"]
    assert [results[name] for name in ("fine", "spoils", "last")] == ["fine", "spoils", "last"]
    assert results["crashes"] == "exit status 9: that was it"
    assert "took more than" in str(results["hangs"])


def test_a_budget_ends_it() -> None:
    assert found("fine", "hangs", "last", limit=60, budget=0.6)[-1][1] == "no time left"


def test_a_worker_that_does_nothing_is_not_started_for_ever(tmp_path: Path) -> None:
    one = Supervisor([sys.executable, "-c", "raise ValueError('broken')"], {}, 1, time.monotonic() + 60)
    results = list(one.results())
    assert len(results) == 3
    assert "ValueError: broken" in results[0].error
    assert "twice" in results[-1].error


def test_a_job_that_raises_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton has packages for Linux only")
    from tramontane_backend_cuda.bench import jobs
    from tramontane_backend_cuda.bench.isolation import EVENTS, SPOILED
    from tramontane_backend_cuda.bench.limits import Line

    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    notes = Notes.here()
    assert notes is not None
    good = jobs.Job("kernel", "good", "us", lambda: iter([Line(section="kernel", what="good", value=1, unit="us")]))
    bad = jobs.Job("kernel", "bad", "us", lambda: iter([1 / 0]))
    assert jobs.work(iter([bad, good]), notes, "cpu") == 0
    text = (tmp_path / "events").read_text()
    assert "ZeroDivisionError" in text
    assert text.count("end") == 2
    monkeypatch.setattr(jobs, "alive", lambda device: False)
    assert jobs.work(iter([good, bad, good]), notes, "cpu") == SPOILED
