# SPDX-License-Identifier: Apache-2.0
"""Every instruction set that the machine has, forced in turn; pools of one to four threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import ISAS, LibraryError, choose_isa, library, pool, runnable_isas

sys.path.insert(0, str(Path(__file__).parent))  # for cpu_kit
torch.set_num_threads(1)

try:
    library()
    MISSING = ""
except LibraryError as error:
    MISSING = str(error)

collect_ignore_glob = ["test_native_*.py"] if MISSING else []
"""Without the native library only the tests of its absence run."""


def pytest_report_header() -> str:
    """Say which instruction sets are tested, and why if none."""
    return f"cpu backend: {MISSING}" if MISSING else f"cpu backend: {', '.join(runnable_isas())}"


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels are those of this instruction set while the test runs."""
    if request.param not in runnable_isas():
        pytest.skip(f"this machine has no {request.param}")
    choose_isa(request.param)
    yield request.param
    choose_isa("")


@pytest.fixture(params=(1, 3))
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine of one thread and one of several."""
    return Engine(pool(request.param))
