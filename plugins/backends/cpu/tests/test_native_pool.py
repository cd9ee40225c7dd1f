# SPDX-License-Identifier: Apache-2.0
"""The thread pool: many regions, several callers, forks. And the library around it."""

from __future__ import annotations

import ctypes
import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from cpu_kit import matrix, run

from tramontane.ops import Linear
from tramontane_backend_cpu import abi, threads
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import LibraryError, choose_isa, library, pool


def product(engine: Engine) -> torch.Tensor:
    weight = torch.arange(640 * 512, dtype=torch.float32).remainder(13).view(640, 512)
    x = torch.arange(20 * 512, dtype=torch.float32).remainder(7).view(20, 512)
    return run(Linear(640), (matrix(weight, [640], torch.float32),), engine, (x,))[0]


def test_the_structures_are_those_of_the_library() -> None:
    for struct in abi.STRUCTS:
        assert library().tm_sizeof(struct.names.encode()) == ctypes.sizeof(struct), struct.names
    assert library().tm_sizeof(b"tm_none") == 0


def test_thousands_of_regions(isa: str) -> None:
    engine = Engine(pool(4))
    expected = product(engine)
    weight = matrix(torch.ones(64, 64), [64], torch.float32)
    for _ in range(1000):
        assert run(Linear(64), (weight,), engine, (torch.ones(20, 64),))[0][0, 0] == 64
    assert torch.equal(product(engine), expected)


def test_sleepers_wake() -> None:
    engine = Engine(pool(3))
    expected = product(engine)
    for pause in (0.0, 0.0002, 0.02):
        time.sleep(pause)
        assert torch.equal(product(engine), expected)


def test_callers_take_turns() -> None:
    engine, results = Engine(pool(3)), []
    expected = product(engine)

    def work() -> None:
        results.extend(torch.equal(product(engine), expected) for _ in range(20))

    callers = [threading.Thread(target=work) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert results == [True] * 60


def _in_child(queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    queue.put(product(Engine(pool(3))).sum().item())


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    expected = product(Engine(pool(3))).sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
    assert product(Engine(pool(3))).sum().item() == expected


def test_reading_reads_everything() -> None:
    data = torch.ones(1 << 20)
    for count in (1, 2):
        assert library().tm_read(pool(count).handle, data.data_ptr(), data.numel() * 4) == data.numel()


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(LibraryError, match="this machine runs portable"):
        choose_isa("avx1024")
    choose_isa("")


def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAMONTANE_CPU_ISA", "avx1024")
    code = (
        "import os\n"
        "from tramontane_backend_cpu import backend, library\n"
        "print(backend.CpuBackend.probe())\n"
        "os.environ['TRAMONTANE_CPU_ISA'] = 'portable'\n"
        "backend._why_not.cache_clear()\n"
        "print(backend.CpuBackend.probe(), library.current_isa())"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    refused, chosen = made.stdout.splitlines()
    assert "avx1024" in refused
    assert "not used" in made.stderr
    assert chosen.split() == ["None", "portable"]


# --- how many threads -------------------------------------------------------------------------------------------------


def cgroup(root: Path, version: int, *limits: tuple[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    line = "0::/user/job\n" if version == 2 else "3:memory:/m\n2:cpu,cpuacct:/user/job\n"
    (root / "proc/self/cgroup").write_text(line)
    for name, text in limits:
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch uses eight threads on eight processors."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
def test_threads_follow_quota_affinity_and_wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = cgroup(tmp_path / "free", 2, ("user/job/cpu.max", "max 100000"))
    assert threads.thread_count(free) == 8
    tight = cgroup(tmp_path / "tight", 2, ("user/job/cpu.max", "max 100000"), ("user/cpu.max", "250000 100000"))
    assert threads.thread_count(tight) == 3, "the parent's quota of two and a half processors"
    for name, quota, expected in (("old", "200000", 2), ("unlimited", "-1", 8)):
        files = (("cpu/user/job/cpu.cfs_quota_us", quota), ("cpu/user/job/cpu.cfs_period_us", "100000"))
        assert threads.thread_count(cgroup(tmp_path / name, 1, *files)) == expected
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {1, 5}, raising=False)
    assert threads.thread_count(free) == 2
    monkeypatch.setenv(threads.VARIABLE, "5")
    assert threads.thread_count(free) == 5, "who says a number gets it"
    monkeypatch.setenv(threads.VARIABLE, "many")
    with pytest.raises(ValueError, match="positive"):
        threads.thread_count(free)
