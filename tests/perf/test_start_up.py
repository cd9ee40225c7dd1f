# SPDX-License-Identifier: Apache-2.0
"""What starting costs beside a bare Python, printed by ``make bench``: the import, the catalogs, two commands.

Runs are interleaved, so that a busy moment slows all of them, and medians are compared. Each is a process of its own;
its time is that of the whole process, the interpreter's own start included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.perf

ROUNDS = 15
BARE = ("-c", "pass")
STARTS = {
    "python -c pass": BARE,
    "import tramontane": ("-c", "import tramontane"),
    "all catalogs": ("-c", "from tramontane.plugins import installed; installed()"),
    "tramontane --help": ("-m", "tramontane", "--help"),
    "tramontane plugins": ("-m", "tramontane", "plugins"),
}
LIMITS = {"tramontane --help": 0.300, "tramontane plugins": 0.600}
"""Seconds of the whole process."""
IMPORT_LIMIT = 0.050
"""Seconds beyond a bare Python."""


def seconds(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def test_start_up(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled files are there after pip; a checkout may have none, and a developer's machine may forbid them.
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for arguments in STARTS.values():
        seconds(arguments)  # fills the system's caches
    rounds = [{name: seconds(arguments) for name, arguments in STARTS.items()} for _ in range(ROUNDS)]
    middle = {name: statistics.median(one[name] for one in rounds) for name in STARTS}
    beyond = {name: statistics.median(one[name] - one["python -c pass"] for one in rounds) for name in STARTS}
    with capsys.disabled():
        print()
        for name in STARTS:
            print(f"{name:<20} median {middle[name] * 1e3:6.1f} ms, beyond a bare Python {beyond[name] * 1e3:6.1f} ms")
    assert beyond["import tramontane"] < IMPORT_LIMIT
    assert [name for name, limit in LIMITS.items() if middle[name] >= limit] == []
