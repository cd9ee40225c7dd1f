# SPDX-License-Identifier: Apache-2.0
"""Makes the test kit importable, and Triton an interpreter before anything imports it.

``TRITON_INTERPRET=0 pytest plugins/backends/cuda/tests`` runs the same tests on a card.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))  # for cuda_kit
torch.set_num_threads(1)
if os.environ["TRITON_INTERPRET"] == "0" and torch.cuda.is_available():
    torch.set_default_device("cuda")
