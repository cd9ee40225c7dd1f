# SPDX-License-Identifier: Apache-2.0
"""What this machine lets the process have: cores, memory, instruction sets.

In a container the limits of the control group count and not the machine's size; both versions of cgroups are read.
Nothing here imports torch or knows what the resources are for.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_NO_LIMIT = 1 << 60
"""cgroups v1 writes a number near 2**63 for "no limit"."""


def cores() -> float:
    """Cores this process may use: the smaller of its affinity and its cgroup's quota, which may be a fraction."""
    available = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cpu_quota()
    return min(available, quota) if quota is not None else available


def memory_total() -> int:
    """Bytes of memory this process can ever have: the machine's, or less where a cgroup says so."""
    machine = _meminfo("MemTotal") or _sysconf_memory()
    limits = [limit for limit, _ in _memory_limits()]
    return min([machine, *limits])


def memory_available() -> int:
    """Bytes that can be taken now without swapping: free and reclaimable memory, within every cgroup's limit.

    File pages of the cgroup count as available: the kernel drops them when memory is asked for.
    """
    machine = _meminfo("MemAvailable") or _sysconf_memory()
    return max(0, min([machine, *(limit - used for limit, used in _memory_limits())]))


def instruction_sets() -> frozenset[str]:
    """Names of the processor's instruction sets as Linux spells them (``avx2``, ``avx512f``, ``asimd`` ...).

    Empty where the system does not tell.
    """
    for line in _read(_PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def processor() -> str:
    """The processor's name for people."""
    for line in _read(_PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


# --- Linux ------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _meminfo(key: str) -> int:
    for line in _read(_PROC / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return 0


def _sysconf_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _NO_LIMIT


def _groups(controller: str) -> list[Path]:
    """The folders of this process's cgroup and of its parents, innermost first; a limit on any of them holds."""
    for line in _read(_PROC / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version_2 = number == "0" and not names
        if not version_2 and controller not in names.split(","):
            continue
        root = _CGROUP if version_2 else _CGROUP / controller
        folder = root / path.lstrip("/")
        # A container sees its own group as the root, while /proc may still name the path outside.
        folder = folder if folder.is_dir() else root
        if (root / ("cgroup.controllers" if version_2 else "tasks")).exists():
            return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]
    return []


def _memory_limits() -> list[tuple[int, int]]:
    """(limit, used without file pages) in bytes, for each group that has a limit."""
    found = []
    for group in _groups("memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
        found.append((limit, max(0, used - _file_pages(group))))
    return found


def _file_pages(group: Path) -> int:
    for line in _read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _cpu_quota() -> float | None:
    quotas = []
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _read(group / "cpu.cfs_quota_us").strip()
            period = _read(group / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None
