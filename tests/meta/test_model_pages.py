# SPDX-License-Identifier: Apache-2.0
"""What the documentation says about models is what the catalogs say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_about_models_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/model_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
