# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this folder share ``documented``; pytest's importlib mode puts no folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
