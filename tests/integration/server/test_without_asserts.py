# SPDX-License-Identifier: Apache-2.0
"""The server's other tests under ``python -O``, where an ``assert`` in the product checks nothing.

Those of test modules still do: pytest has made something else of them. What attacks a server as a process is run so by
``test_threats.py`` itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FRONTENDS = HERE.parents[2] / "plugins" / "frontends"
TESTS = (
    HERE / "test_load.py", HERE / "test_anthropic_api.py", HERE / "test_tools.py", HERE / "test_adapter_models.py",
    HERE / "web", FRONTENDS / "http" / "tests" / "test_gate.py", FRONTENDS / "http" / "tests" / "test_management.py",
    FRONTENDS / "openai" / "tests", FRONTENDS / "web" / "tests",
)  # fmt: skip


@pytest.mark.full
def test_nothing_rests_on_an_assert() -> None:
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *map(str, TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=HERE.parents[2])
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stdout[-3000:]
