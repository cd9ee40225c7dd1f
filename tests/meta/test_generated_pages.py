# SPDX-License-Identifier: Apache-2.0
"""What the documentation says about models, errors and types is what catalogs, classes and measurements say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("script", ["model_pages", "error_pages", "quantization_page"])
def test_generated_pages_are_fresh(script: str) -> None:
    command = [sys.executable, f"scripts/{script}.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
