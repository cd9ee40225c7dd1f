# SPDX-License-Identifier: Apache-2.0
"""Makes the test kit importable, and Triton an interpreter before anything imports it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))  # for cuda_kit
torch.set_num_threads(1)
