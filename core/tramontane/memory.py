# SPDX-License-Identifier: Apache-2.0
"""How much memory there is, and how much this process really holds.

Limits are those of the cgroup as well as of the machine, so that budgets hold in containers. What a process holds is
its anonymous and shared memory: mapped file pages do not count, the system drops them when it needs room.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from attrs import define, field, frozen

_ROOT = Path("/")
#: Limits at or above this are "no limit" in version 1 of cgroups.
_UNLIMITED = 2**60


@frozen
class MemoryLimits:
    """Bytes that this process may use: ``total`` with nothing running, ``available`` now (file pages count as free)."""

    total: int
    available: int


def memory_limits(root: Path = _ROOT) -> MemoryLimits:
    """The narrowest of the machine's memory and the limits of the cgroups this process is in.

    Args:
        root: Where ``/proc`` and ``/sys`` are found.
    """
    machine = _machine(root)
    total, available = machine.total, machine.available
    for limit, used in _cgroups(root):
        total, available = min(total, limit), min(available, max(limit - used, 0))
    return MemoryLimits(total, available)


def available_memory() -> int:
    """Bytes that can be allocated now; see :func:`memory_limits`."""
    return memory_limits().available


def total_memory() -> int:
    """Bytes there are in all; see :func:`memory_limits`."""
    return memory_limits().total


def private_memory(root: Path = _ROOT) -> int:
    """Bytes of anonymous and shared memory this process holds (``RssAnon + RssShmem``); 0 where it cannot be told."""
    found = _table(root / "proc/self/status")
    if "RssAnon" in found:
        return found["RssAnon"] + found.get("RssShmem", 0)
    return _resident()


@define
class PeakMemory:
    """Largest :func:`private_memory` within a ``with`` block, less what was held at its start.

    The system keeps no such peak (its high-water mark counts file pages), so a thread looks every few milliseconds;
    shorter spikes are missed.
    """

    interval_s: float = 0.002
    start: int = 0
    peak: int = 0
    _stop: threading.Event = field(factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def growth(self) -> int:
        """Bytes by which the peak exceeds the start."""
        return max(self.peak - self.start, 0)

    def __enter__(self) -> Self:
        self.start = self.peak = private_memory()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.peak = max(self.peak, private_memory())

    def _watch(self) -> None:
        while not self._stop.wait(self.interval_s):
            self.peak = max(self.peak, private_memory())


def format_bytes(count: float) -> str:
    """``1.5 GiB``: for people."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


# --- the machine -----------------------------------------------------------------------------------------------------


def _machine(root: Path) -> MemoryLimits:
    found = _table(root / "proc/meminfo")
    if "MemTotal" in found:
        return MemoryLimits(found["MemTotal"], found.get("MemAvailable", found.get("MemFree", 0)))
    if sys.platform == "win32":
        return _windows()
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    try:
        available = os.sysconf("SC_AVPHYS_PAGES") * page
    except (ValueError, OSError):  # macOS does not tell; most of the memory is reclaimable there
        available = total // 2
    return MemoryLimits(total, available)


def _windows() -> MemoryLimits:
    """``GlobalMemoryStatusEx``: eight bytes of header, then 64-bit counters."""
    import ctypes

    status = (ctypes.c_uint64 * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
    ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return MemoryLimits(int(status[1]), int(status[2]))


def _resident() -> int:
    """Largest resident size so far: the nearest thing to be had without ``/proc``; 0 on Windows."""
    try:
        import resource
    except ImportError:
        return 0
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _table(path: Path) -> dict[str, int]:
    """``Name:   123 kB`` lines as bytes; empty if there is no such file."""
    found = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


# --- cgroups ---------------------------------------------------------------------------------------------------------


def _cgroups(root: Path) -> list[tuple[int, int]]:
    """(limit, used) of each limited cgroup from the process's own to the top, both versions.

    Used does not include file pages: they are given back under pressure.
    """
    found = []
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            base, names = mounts, ("memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            base = mounts / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
        else:
            continue
        # In a container the path may be that of the host, which is not visible: the mount itself is then the group.
        inner = PurePosixPath(path.lstrip("/"))
        groups = [base / part for part in (inner, *inner.parents)] if ".." not in inner.parts else [base]
        for group in dict.fromkeys([*groups, base]):
            limit, used = _number(group / names[0]), _number(group / names[1])
            if limit is not None and used is not None and limit < _UNLIMITED:
                found.append((limit, max(used - _file_pages(group / "memory.stat", names[2:]), 0)))
    return found


def _file_pages(path: Path, names: tuple[str, ...]) -> int:
    pages = 0
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name in names and value.strip().isdigit():
            pages += int(value)
    return pages


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
