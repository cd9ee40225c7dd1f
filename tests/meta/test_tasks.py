# SPDX-License-Identifier: Apache-2.0
"""dev.py and the Makefile: one set of tasks, a set-up that happens once, a clear word where Python lacks something."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev(tmp_path: Path) -> ModuleType:
    """dev.py over a small repository of its own, whose commands are recorded and not run."""
    spec = importlib.util.spec_from_file_location("dev_under_test", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (
        "constraints.txt",
        "requirements-build.txt",
        "requirements.txt",
        "requirements-dev.txt",
        "pyproject.toml",
    ):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "plugins/kind/one").mkdir(parents=True)
    (tmp_path / "plugins/kind/one/pyproject.toml").write_text("one", encoding="utf-8")
    binaries = tmp_path / ".venv" / "bin"
    commands: list[tuple[str, ...]] = []

    def call(*command: object, **_options: object) -> int:
        commands.append(tuple(map(str, command)))
        if "venv" in commands[-1]:
            binaries.mkdir(parents=True)
            (binaries / "python").touch()
        return 0

    vars(module).update(
        ROOT=tmp_path, VENV=tmp_path / ".venv", BIN=binaries, PYTHON=binaries / "python", call=call, commands=commands
    )
    return module


def installs(dev: ModuleType) -> list[str]:
    """The requirement files that were installed."""
    return [command[-1] for command in dev.commands if "install" in command]


def test_set_up_happens_once(dev: ModuleType) -> None:
    assert dev.set_up("requirements.txt") == 0
    assert installs(dev) == ["requirements-build.txt", "requirements.txt"]
    assert dev.set_up("requirements.txt") == 0
    assert len(installs(dev)) == 2
    assert dev.set_up("requirements-dev.txt") == 0
    assert installs(dev)[2:] == ["requirements-build.txt", "requirements-dev.txt"]


def test_what_developers_have_is_enough_for_users(dev: ModuleType) -> None:
    dev.set_up("requirements-dev.txt")
    dev.commands.clear()
    assert dev.set_up("requirements.txt") == 0
    assert installs(dev) == []


@pytest.mark.parametrize("name", ["constraints.txt", "requirements.txt", "plugins/kind/one/pyproject.toml"])
def test_a_changed_file_asks_for_a_new_set_up(dev: ModuleType, name: str) -> None:
    dev.set_up("requirements.txt")
    dev.commands.clear()
    (dev.ROOT / name).write_text("changed", encoding="utf-8")
    dev.set_up("requirements.txt")
    assert "requirements.txt" in installs(dev)


def test_a_failed_installation_leaves_no_stamp(dev: ModuleType) -> None:
    working = dev.call
    dev.call = lambda *command, **options: 1 if "install" in command else working(*command, **options)
    assert dev.set_up("requirements.txt") == 1
    assert not dev.stamp("requirements.txt").exists()


def test_every_install_is_constrained_and_not_isolated(dev: ModuleType) -> None:
    dev.set_up("requirements-dev.txt")
    for command in dev.commands:
        if "install" in command:
            assert command[command.index("-c") + 1] == "constraints.txt"
    assert "--no-build-isolation" in dev.commands[-1]


def test_debian_without_venv_gets_the_line_to_type() -> None:
    code = (
        "import sys; sys.modules['ensurepip'] = None; sys.argv = ['dev.py']\n"
        f"import runpy; dev = runpy.run_path({str(ROOT / 'dev.py')!r})\n"
        "from pathlib import Path; dev['make_venv'].__globals__['PYTHON'] = Path('/nowhere/python')\n"
        "print(dev['make_venv']())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    version = ".".join(map(str, sys.version_info[:2]))
    line = rf"^  (sudo )?apt-get update && (sudo )?apt-get install python{version}-venv$"
    assert re.search(line, done.stderr, re.MULTILINE)


def test_an_old_python_is_sent_on_or_told(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "python3.12" else None)
    assert dev.with_newer_python(["test"]) == 0
    assert dev.commands[-1][0] == "/usr/bin/python3.12"
    assert dev.commands[-1][-1] == "test"
    monkeypatch.setattr(dev.shutil, "which", lambda name: None)
    assert dev.with_newer_python(["test"]) == 1


def test_dev_py_parses_on_an_old_python() -> None:
    """To say that a newer Python is needed, it has to be read by the old one."""
    ast.parse((ROOT / "dev.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_the_makefile_has_every_task_and_no_other() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    listed = subprocess.run([sys.executable, str(ROOT / "dev.py")], capture_output=True, text=True, check=True).stdout
    tasks = re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)
    assert targets.split() == ["help", *tasks]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_hands_over_to_dev_py() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage: make TASK, or python3 dev.py TASK" in done.stdout


def test_an_unknown_task_is_wrong_usage() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "dev.py"), "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
