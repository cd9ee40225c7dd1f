# SPDX-License-Identifier: Apache-2.0
"""The processor: how many cores this process may use, and which instruction sets there are.

In a container the control group's quota counts and not the machine's cores; both versions of cgroups are read. Memory
is :mod:`tramontane.memory`'s.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> float:
    """Cores this process may use: the smaller of its affinity and its cgroups' quotas, which may be a fraction.

    Args:
        root: Where ``/proc`` and ``/sys`` are found.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(available), *_quotas(root)])


def instruction_sets(root: Path = _ROOT) -> frozenset[str]:
    """Names of the instruction sets as Linux spells them (``avx2``, ``avx512f``, ``asimd`` ...); empty elsewhere."""
    return frozenset((_cpuinfo(root, "flags") or _cpuinfo(root, "Features")).split())


def model_name(root: Path = _ROOT) -> str:
    """The processor's name for people."""
    return _cpuinfo(root, "model name") or platform.processor() or platform.machine()


def _cpuinfo(root: Path, wanted: str) -> str:
    """The first value of a key in ``/proc/cpuinfo``."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == wanted:
            return value.strip()
    return ""


def _quotas(root: Path) -> list[float]:
    """Cores that each limited cgroup from the process's own to the top allows."""
    found = []
    for folder in _cgroups(root):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if not quota:  # version 1; "no limit" is -1 there and "max" in version 2
            quota = _text(folder / "cpu.cfs_quota_us").strip()
            period = _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
            found.append(int(quota) / int(period))
    return found


def _cgroups(root: Path) -> list[Path]:
    """Folders of the process's own cgroup and its parents, for the version that controls the processor.

    A container sees its own group as the top, while ``/proc`` may name the path outside; then only the top is there.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = mounts
        elif "cpu" in controllers.split(","):
            top = mounts / "cpu"
        else:
            continue
        own = top / path.lstrip("/")
        folders = [own, *(parent for parent in own.parents if parent == top or top in parent.parents)]
        return [folder for folder in folders if folder.is_dir()]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
