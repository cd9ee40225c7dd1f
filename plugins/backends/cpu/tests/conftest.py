# SPDX-License-Identifier: Apache-2.0
"""Every instruction set that the machine has, forced in turn; pools of one and of three threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tramontane_backend_cpu.plugin
from tramontane.plugins import Plugins, discovery, installed
from tramontane.testing.sealed import sealed
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import ISAS, LibraryError, choose_isa, pool, runnable_isas

sys.path.insert(0, str(Path(__file__).parent))  # for cpu_kit
torch.set_num_threads(1)

try:
    RUNNABLE = runnable_isas()
    MISSING = ""
except LibraryError as error:
    RUNNABLE, MISSING = [], str(error)

collect_ignore_glob = ["test_native_*.py"] if MISSING else []
"""Without the native library only the tests of its absence run."""


def pytest_report_header() -> str:
    """Say which instruction sets are tested and which this machine does not have, or why none is."""
    if MISSING:
        return f"cpu backend: {MISSING}"
    others = [isa for isa in ISAS if isa not in RUNNABLE]
    return f"cpu backend: {', '.join(RUNNABLE)}" + (f"; not tested here: {', '.join(others)}" if others else "")


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """What is installed, and this backend even where it is not."""
    found = installed()
    names = {spec.name for spec in found.catalogs.backends}
    return found if "cpu" in names else sealed(tramontane_backend_cpu.plugin, *discovery.installed())


@pytest.fixture(params=RUNNABLE)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels are those of this instruction set while the test runs."""
    choose_isa(request.param)
    yield request.param
    choose_isa("")


@pytest.fixture(params=(1, 3))
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine of one thread and one of several."""
    return Engine(pool(request.param))


@pytest.fixture(params=(3, pytest.param(1, marks=pytest.mark.full)))
def several(request: pytest.FixtureRequest) -> Engine:
    """An engine of several threads, and in the full run one of a single thread: for large grids.

    How work is shared does not depend on what these grids vary, and has tests of its own.
    """
    return Engine(pool(request.param))
