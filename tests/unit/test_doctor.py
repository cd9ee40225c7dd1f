# SPDX-License-Identifier: Apache-2.0
"""Health checks: what they say of machines that are well and of machines that are not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import huggingface_hub.constants
import pytest

from tramontane import health, hookimpl, processor
from tramontane.cli.doctor import examine
from tramontane.memory import MemoryLimits
from tramontane.records import Health, HealthCheck, HealthStatus
from tramontane.testing.sealed import sealed

GIB = 1 << 30


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def plugin(check: str) -> ModuleType:
    module = ModuleType("checker")

    @hookimpl
    def tramontane_health_checks() -> HealthCheck:
        return HealthCheck(name="mine", check=check)

    module.tramontane_health_checks = tramontane_health_checks  # type: ignore[attr-defined]
    return module


def good(plugins: object) -> Iterable[Health]:
    return [Health(title="mine", status=HealthStatus.OK, message="fine")]


def breaks(plugins: object) -> Iterable[Health]:
    yield Health(title="mine", status=HealthStatus.OK, message="so far")
    raise SystemExit(3)


def test_the_cores_checks_run_here() -> None:
    lines = list(examine(sealed()))
    assert {line.title for line in lines} >= {"python", "torch", "processor", "memory", "disk", "compiler", "plugins"}
    assert not [line for line in lines if "raised" in line.message]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("good", [("mine", "ok", "fine")]),
        ("breaks", [("mine", "ok", "so far"), ("mine", "fail", "the check of plugin checker raised SystemExit: 3")]),
        (
            "missing",
            [("mine", "fail", "the check of plugin checker raised PluginError: health check 'mine' of plugin")],
        ),
    ],
)
def test_a_check_that_raises_is_a_line(
    check: str, expected: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ModuleType("checks_of_this_test")
    vars(here).update(good=good, breaks=breaks)
    monkeypatch.setitem(sys.modules, here.__name__, here)
    lines = list(examine(sealed(plugin(f"{here.__name__}:{check}"), core=False)))
    assert [
        (line.title, str(line.status), line.message[: len(text)])
        for line, (*_, text) in zip(lines, expected, strict=True)
    ] == expected


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "memory_limits", lambda: MemoryLimits(8 * GIB, GIB))
    (line,) = health.check_memory(sealed())
    assert line.status is HealthStatus.WARN
    assert line.message == "1.00 GiB of 8.00 GiB available"


def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GIB, 99 * GIB, GIB))
    (line,) = health.check_disk(sealed())
    assert (line.status, line.message) == (HealthStatus.WARN, f"1.00 GiB free for models in {cache}")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GIB, 0, 100 * GIB))
    (line,) = health.check_disk(sealed())
    assert line.status is HealthStatus.OK


def test_no_compiler_is_a_warning_and_says_that_all_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false-compiler")
    (line,) = health.check_compiler(sealed())
    assert (line.status, line.message) == (HealthStatus.WARN, "CXX=false-compiler is not a program")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = health.check_compiler(sealed())
    assert line.status is HealthStatus.WARN
    assert line.hint is not None
    assert "everything works without one" in line.hint


def test_plugins_in_trouble_are_lines() -> None:
    broken = ModuleType("broken")

    @hookimpl
    def tramontane_loaders() -> str:
        return "nonsense"

    broken.tramontane_loaders = tramontane_loaders  # type: ignore[attr-defined]
    lines = list(health.check_plugins(sealed(broken)))
    assert [line.status for line in lines] == [HealthStatus.OK, HealthStatus.FAIL]
    assert lines[1].message.startswith("plugin broken failed to load: PluginError")


# --- the processor ----------------------------------------------------------------------------------------------------


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_the_narrowest_quota_of_a_nested_cgroup_counts(tmp_path: Path) -> None:
    top = "sys/fs/cgroup"
    files = {f"{top}/pod/cpu.max": "50000 100000\n", f"{top}/pod/box/cpu.max": "max 100000\n"}
    assert processor.cores(machine(tmp_path, "0::/pod/box\n", files)) == 0.5


def test_a_quota_of_cgroups_version_1(tmp_path: Path) -> None:
    top = "sys/fs/cgroup/cpu"
    files = {f"{top}/cpu.cfs_quota_us": "25000\n", f"{top}/cpu.cfs_period_us": "100000\n"}
    assert processor.cores(machine(tmp_path, "4:cpu,cpuacct:/docker/0123\n1:name=systemd:/x\n", files)) == 0.25


def test_no_quota(tmp_path: Path) -> None:
    here = processor.cores(tmp_path)
    assert here >= 1
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert processor.cores(machine(tmp_path, "0::/\n", files)) == here
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}
    assert processor.cores(machine(tmp_path, "4:cpu:/\n", files)) == here


def test_instruction_sets_of_both_families(tmp_path: Path) -> None:
    info = "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 fma\n"
    root = machine(tmp_path, "", {"proc/cpuinfo": info})
    assert processor.instruction_sets(root) == {"fpu", "avx2", "fma"}
    assert processor.model_name(root) == "A Processor"
    root = machine(tmp_path, "", {"proc/cpuinfo": "Features\t: asimd i8mm\n"})
    assert processor.instruction_sets(root) == {"asimd", "i8mm"}
