# SPDX-License-Identifier: Apache-2.0
"""Triton's kernels are run by its interpreter, which has to be chosen before anything imports Triton."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
