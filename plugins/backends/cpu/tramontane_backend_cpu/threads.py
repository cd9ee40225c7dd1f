# SPDX-License-Identifier: Apache-2.0
"""How many threads the kernels get: what was asked for, and never more than this process may use at once."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

VARIABLE = "TRAMONTANE_CPU_THREADS"


def thread_count(root: Path = Path("/")) -> int:
    """``TRAMONTANE_CPU_THREADS``, or torch's number (``--threads`` sets it), within affinity and cgroup quota.

    Args:
        root: Where ``/sys/fs/cgroup`` and ``/proc`` are found.

    Raises:
        ValueError: The variable is not a positive number.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise ValueError(f"{VARIABLE} must be a positive number, not {asked!r}")
        return int(asked)
    return max(1, min(torch.get_num_threads(), _affinity(), _quota(root)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path) -> int:
    """Processors' worth of time that the cgroup allows, rounded up: versions 2 and 1."""
    top = root / "sys/fs/cgroup"
    own = [top / path.lstrip("/") for path in _own_groups(root)]
    chain = [folder for start in own for folder in (start, *start.parents) if folder.is_relative_to(top)]
    return min((limit for limit in map(_limit, chain) if limit is not None), default=1 << 16)


def _own_groups(root: Path) -> list[str]:
    text = _read(root / "proc/self/cgroup")
    rows = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    paths = [f"cpu{path}" if names else path for _, names, path in rows if names in ("", "cpu", "cpu,cpuacct")]
    return paths or [""]


def _limit(folder: Path) -> int | None:
    words = _read(folder / "cpu.max").split()
    if len(words) != 2:
        words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
    if not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None  # "max", -1, or no such file
    return max(1, math.ceil(int(words[0]) / int(words[1])))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
