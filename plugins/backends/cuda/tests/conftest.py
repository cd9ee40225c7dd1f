# SPDX-License-Identifier: Apache-2.0
"""Makes the test kit importable, and Triton an interpreter before anything imports it.

``TRITON_INTERPRET=0 pytest plugins/backends/cuda/tests`` runs the same tests on a card. A kernel that fails there may
spoil the context, and every test after it: the session ends then, and names the one. ``python -m
tramontane_backend_cuda.bench --only tests`` goes on with the others in another process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from tramontane_backend_cuda.bench.isolation import SPOILED, Notes, alive

os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))  # for cuda_kit
torch.set_num_threads(1)
if os.environ["TRITON_INTERPRET"] == "0" and torch.cuda.is_available():
    torch.set_default_device("cuda")
    CARD = True
else:
    CARD = False
if not CARD and importlib.util.find_spec("triton") is not None:
    from quick_interpreter import install

    install()
NOTES = Notes.here()
_worst: dict[str, str] = {"outcome": "passed", "reason": ""}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what other workers have done."""
    done = Notes.skipped() if NOTES is not None else frozenset()
    if done:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        items[:] = [item for item in items if item.nodeid not in done]


def pytest_sessionfinish(exitstatus: int) -> None:
    """Note that there is nothing left to do: all passed, some failed, or none was left."""
    if NOTES is not None and exitstatus in (0, 1, 5):
        NOTES.write("finish", None)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins."""
    _worst.update(outcome="passed", reason="")
    if NOTES is not None:
        NOTES.write("begin", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the worst of a test's three phases."""
    if report.failed or (report.skipped and _worst["outcome"] == "passed"):
        _worst.update(outcome=report.outcome, reason=str(report.longreprtext).strip().splitlines()[-1][:160])


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Note what came of it; go no further on a card that does not answer."""
    if NOTES is not None:
        NOTES.write("line", dict(_worst))
        NOTES.write("end", nodeid)
    if CARD and _worst["outcome"] == "failed" and not alive("cuda"):
        if NOTES is not None:
            os._exit(SPOILED)
        pytest.exit(f"{nodeid} spoiled the card's context: nothing after it could pass", returncode=1)
