# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is on a processor: a server's threads never interrupt those of its engines' processes.

The threads of an engine work on parts of one step and wait for each other at its every layer: one that is interrupted
holds up all. On Linux a thread of the batch class gets its fair share of time, but takes no processor from a running
thread when it wakes (https://man7.org/linux/man-pages/man7/sched.7.html); elsewhere nothing is changed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def yield_to_engines() -> None:
    """Let this thread, and those it will start, wait for their turn. Processes that it starts inherit that."""
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        _choose(os.SCHED_BATCH)


def take_turns() -> None:
    """Undo :func:`yield_to_engines` for this thread: it belongs to an engine's process. Another class that was chosen
    for it, by whoever started the server, stays."""
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_BATCH:
        _choose(os.SCHED_OTHER)


def _choose(policy: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may refuse it; then nobody yields, which only costs time
            os.sched_setscheduler(0, policy, os.sched_param(0))
