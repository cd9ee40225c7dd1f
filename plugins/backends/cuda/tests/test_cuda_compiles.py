# SPDX-License-Identifier: Apache-2.0
"""Every kernel compiles for a Hopper card, without one: what the interpreter forgives, the compiler does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

SHARED_BYTES = 227 * 1024
"""What a program can have of shared memory on Hopper."""
SPILLED_BYTES = 128
"""What a thread may keep outside its registers: a few words that the loop does not need cost nothing."""
AHEAD = {f"{name}, {tokens} tokens" for name in ("q4_0", "q8_0", "q4_k", "q6_k", "mxfp4") for tokens in (16, 64)}
"""Products whose scales are read a tile ahead."""
WAITED = 2
"""Loads that a turn of theirs may wait for: two words of 64 bits, half of which the compiler converts early."""


@pytest.mark.full
def test_every_kernel_compiles_for_a_card() -> None:
    program = Path(__file__).parent / "compile_for_card.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    kernels = json.loads(done.stdout)
    assert {"product", "expand", "attend_task", "join_tasks", "map_tasks", "rotate_write_heads", "up_pairs",
            "down_token", "down_pairs", "sort_pairs", "mix_pairs", "choose_experts", "convolve_rows",
            "delta_rows", "prepare_chunks", "walk_chunks", "look_at_rows", "weigh_rows", "open_buckets", "bound_rows",
            "take_tokens", "fill_rows", "fill_blocks"} <= {
                one["kernel"] for one in kernels}  # fmt: skip
    assert [one for one in kernels if one["spilled"] > SPILLED_BYTES or one["shared"] > SHARED_BYTES] == []
    ahead = [one for one in kernels if one["use"] in AHEAD]
    assert len(ahead) > 5
    assert [one for one in ahead if one["waited"] > WAITED] == []
