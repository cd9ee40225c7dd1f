# SPDX-License-Identifier: Apache-2.0
"""What starting costs, printed by ``make bench``: the import, a catalog, the help text."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.perf

IMPORT = "import time; t = time.perf_counter(); import tramontane; print(time.perf_counter() - t)"
CATALOGS = (
    "import time; t = time.perf_counter(); from tramontane.plugins import installed; installed()\n"
    "print(time.perf_counter() - t)"
)


def seconds_said(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def seconds_of_help() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tramontane", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def test_start_up(capsys: pytest.CaptureFixture[str]) -> None:
    seconds_of_help()  # fills the system's caches
    measured = {
        "import tramontane": [seconds_said(IMPORT) for _ in range(10)],
        "all catalogs": [seconds_said(CATALOGS) for _ in range(10)],
        "tramontane --help": [seconds_of_help() for _ in range(10)],
    }
    with capsys.disabled():
        print()
        for name, runs in measured.items():
            spread = statistics.stdev(runs) * 1e3
            print(f"{name:<20} {statistics.mean(runs) * 1e3:7.1f} ms +- {spread:.1f}, best {min(runs) * 1e3:.1f}")
    assert min(measured["import tramontane"]) < 0.050
    assert min(measured["tramontane --help"]) < 0.300
