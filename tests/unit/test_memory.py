# SPDX-License-Identifier: Apache-2.0
"""Memory limits, what the process holds, and progress reports."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from tramontane import memory
from tramontane.memory import MemoryLimits, PeakMemory, format_bytes, memory_limits, private_memory
from tramontane.progress import Counter, ProgressEvent, silent

GIB = 2**30
MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\nHugePages_Total:   0\n"
)


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root folder with the given files of ``/proc`` and ``/sys/fs/cgroup``."""
    contents = {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup}
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_cgroup_the_machine_decides(tmp_path: Path) -> None:
    assert memory_limits(machine(tmp_path, "", {})) == MemoryLimits(16 * GIB, 8 * GIB)


def test_the_second_version_of_cgroups_and_its_parents(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": f"{GIB}\n",
        "a/memory.max": f"{4 * GIB}\n",
        "a/memory.current": f"{3 * GIB}\n",
        "a/memory.stat": f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\nshmem 5\n",
    }
    found = memory_limits(machine(tmp_path, "0::/a/b\n", files))
    assert found == MemoryLimits(4 * GIB, 4 * GIB - (3 * GIB - GIB - GIB // 2))


def test_a_container_sees_its_group_at_the_mount(tmp_path: Path) -> None:
    files = {"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}", "memory.stat": ""}
    for group in ("0::/", "0::/../..", "0::/system.slice/docker-0123.scope"):
        assert memory_limits(machine(tmp_path, group + "\n", files)) == MemoryLimits(2 * GIB, GIB)


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    files = {
        "memory/docker/x/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/docker/x/memory.usage_in_bytes": f"{3 * GIB}\n",
        "memory/docker/x/memory.stat": f"total_inactive_file {GIB // 2}\ninactive_file 7\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1\n",
    }
    groups = "5:cpu,cpuacct:/docker/x\n4:hugetlb,memory:/docker/x\n"
    assert memory_limits(machine(tmp_path, groups, files)) == MemoryLimits(2 * GIB, 0)


def test_this_machine_has_memory() -> None:
    limits = memory_limits()
    assert 0 < limits.available <= limits.total
    assert memory.total_memory() == limits.total
    assert memory.available_memory() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_anonymous_memory_counts_and_mapped_files_do_not(tmp_path: Path) -> None:
    size = 64 * 2**20
    path = tmp_path / "data"
    path.write_bytes(bytes(size))
    before = private_memory()
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    assert int(mapped.sum()) == 0
    assert private_memory() - before < size // 4
    with PeakMemory() as peak:
        taken = torch.ones(size, dtype=torch.uint8)
        time.sleep(0.2)  # the watcher looks every few milliseconds, when the machine lets it
        del taken
    assert size * 0.9 < peak.growth < size * 1.5


def test_where_nothing_can_be_told_the_largest_size_serves(tmp_path: Path) -> None:
    assert private_memory(tmp_path) > 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 * 2**20, "5.0 MiB"),
        (3 * GIB, "3.00 GiB"),
        (2048 * GIB, "2048.00 GiB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_progress_counts_up() -> None:
    events: list[ProgressEvent] = []
    counter = Counter(events.append, "load", 10)
    counter.add(4, "a")
    counter.add(6, "b")
    assert [(event.done, event.item, event.fraction) for event in events] == [(4, "a", 0.4), (10, "b", 1.0)]
    assert ProgressEvent("load", 3, 0).fraction == 0
    silent(events[0])
