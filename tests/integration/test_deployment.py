# SPDX-License-Identifier: Apache-2.0
"""The container files: linted, true to the checkout, and their steps are steps that work without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "docs/deploy/Dockerfile", ROOT / "docs/deploy/Dockerfile.cuda"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_linter_has_nothing_to_say(file: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, "--failure-threshold", "info", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_two_differ_in_where_torch_comes_from_alone() -> None:
    cpu, cuda = (file.read_text().splitlines() for file in FILES)
    assert [a for a, b in zip(cpu, cuda, strict=True) if a != b] == [cpu[1], next(x for x in cpu if "whl/cpu" in x)]


def test_what_is_copied_and_installed_exists() -> None:
    text = FILES[0].read_text()
    for name in re.findall(r"-[cr] ([\w.-]+\.txt)|(requirements[\w-]*\.txt)", text):
        assert (ROOT / next(filter(None, name))).exists()
    packages = [line.removeprefix("-e ") for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert all((ROOT / package / "pyproject.toml").exists() for package in packages if not package.startswith("#"))


def test_the_server_takes_the_containers_command() -> None:
    from click import Context

    from tramontane.cli.app import group
    from tramontane.cli.state import State

    pytest.importorskip("tramontane_frontend_http", reason="brings the server")
    (shown,) = re.findall(r"^CMD \[(.*)\]$", FILES[0].read_text(), re.MULTILINE)
    composed = yaml.safe_load((ROOT / "docs/deploy/compose.yaml").read_text())["services"]["tramontane"]["command"]
    for words in ([word.strip(' "') for word in shown.split(",")], composed):
        with Context(group, obj=State()) as root:
            command = group.get_command(root, words[0])
            assert command is not None
            with Context(command, parent=root) as context:
                command.make_parser(context).parse_args(list(words[1:]))
