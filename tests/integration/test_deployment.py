# SPDX-License-Identifier: Apache-2.0
"""The container files: linted, true to the checkout, and their steps are steps that work without an engine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


# --- the steps, without an engine -------------------------------------------------------------------------------------


def container_steps() -> ModuleType:
    """The script that runs them."""
    spec = importlib.util.spec_from_file_location("container_steps", ROOT / "scripts/container_steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_script_knows_every_instruction(file: Path, tmp_path: Path) -> None:
    steps = container_steps()
    found = [name for name, _ in steps.instructions(file.read_text())]
    assert found.count("FROM") == 2
    assert set(found) <= set(steps.STEPS)


def test_an_image_gets_nothing_that_was_built_here(tmp_path: Path) -> None:
    ignored = container_steps().Build(tmp_path, {}).ignored()
    for path in (".git", ".venv", "core/__pycache__", "plugins/backends/cpu/build", "plugins/backends/cpu/x/lib.so"):
        assert ignored(str((ROOT / path).parent), [Path(path).name]), path
    assert not ignored(str(ROOT), ["core", "plugins", "constraints.txt", "LICENSE"])


SERVES_AND_IS_WELL = """
{serve} 2>/tmp/served & server=$!
for second in $(seq 120); do
    {health} && break
    kill -0 $server || break
    sleep 1
done
{health} && echo well
cat /tmp/served >&2
kill -TERM $server; wait $server; echo "ended with $?"
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may change its root")
@pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap makes the base")
def test_the_steps_make_a_container_that_answers_and_serves(tmp_path: Path) -> None:
    """Those of the file for the CPU; the other differs in where torch comes from alone, as is tested above."""
    steps = container_steps()
    folder = Path(os.environ.get("TRAMONTANE_CONTAINER_STEPS", tmp_path))  # to make the base once
    stage = steps.Build(folder, steps.of_this_machine(os.environ)).run(FILES[0])
    answers = [*stage.entrypoint, "run", "-p", "Once upon a time", "--max-tokens", "8", "--json"]
    done = subprocess.run(stage.call(answers, {}, network=False), capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["token_ids"]) == 8
    looks = [*stage.entrypoint, "doctor"]
    done = subprocess.run(stage.call(looks, {}, network=False), capture_output=True, text=True, check=True)
    assert re.search(r"^ok +cpu backend +native kernels", done.stdout, re.MULTILINE), done.stdout
    serve = shlex.join([*stage.entrypoint, *stage.command])
    script = SERVES_AND_IS_WELL.format(serve=serve, health=shlex.join(stage.health) + " 2>/dev/null")
    told = {"TRAMONTANE_API_KEY": "secret"}
    command = stage.call(["/bin/sh", "-c", script], told, network=False)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["well", "ended with 0"], done.stderr
