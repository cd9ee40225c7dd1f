# SPDX-License-Identifier: Apache-2.0
"""Makes the `training` folder importable, which no wheel holds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
