# SPDX-License-Identifier: Apache-2.0
"""The packages as users get them: built, each alone beside the core, and installed into a fresh environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tramontane import __version__

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent.relative_to(ROOT) for path in ROOT.glob("plugins/*/*/pyproject.toml"))

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist and a wheel of everything, built from a copy of the checkout; kernels take minutes and are left out."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout, to know which files are the project's")
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    made = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(made)]
    environment = dict(os.environ, CXX="false")
    for folder in (Path(), *PLUGINS):
        done = subprocess.run(
            [*command, str(copy / folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return made


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(file.read(name).decode())


def test_every_package_is_whole(dist: Path) -> None:
    wheels, sources = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    assert len(wheels) == len(sources) == len(PLUGINS) + 1
    for wheel in wheels:
        said = metadata(wheel)
        assert said["License-Expression"] == "Apache-2.0", wheel.name
        assert said["Version"] == __version__, wheel.name
        assert said["Requires-Python"] == ">=3.11", wheel.name
        assert str(said.get_payload()).strip(), f"{wheel.name} has no description"
        with zipfile.ZipFile(wheel) as file:
            names = file.namelist()
        assert any(name.endswith("/py.typed") for name in names), wheel.name
        assert any("/licenses/LICENSE" in name for name in names), wheel.name
        assert not [name for name in names if "/tests/" in name or name.startswith("tests/")], wheel.name


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the packages need from others: this environment without anything of this project."""
    folder = tmp_path_factory.mktemp("third-party")
    for path in map(Path, sys.path):
        if path.name != "site-packages":
            continue
        for entry in path.iterdir():
            if "tramontane" not in entry.name.lower() and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


def unpacked(dist: Path, into: Path, distribution: str) -> Path:
    (wheel,) = dist.glob(f"{distribution.replace('-', '_')}-{__version__}-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(into / distribution)
    return into / distribution


def ask(paths: list[Path], *arguments: str) -> tuple[int, str, str]:
    """Run the program with exactly these packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAMONTANE_")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-S", "-m", "tramontane", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    return done.returncode, done.stdout, done.stderr


def test_the_core_alone_with_one_plugin_each_and_with_all(dist: Path, third_party: Path, tmp_path: Path) -> None:
    core = unpacked(dist, tmp_path, "tramontane")
    code, out, err = ask([core, third_party], "plugins", "--json", "--check")
    assert code == 0, err
    assert [report["status"] for report in json.loads(out)["plugins"]] == ["ok"]
    for folder in PLUGINS:
        name = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["name"]
        plugin = unpacked(dist, tmp_path, name)
        code, out, err = ask([core, plugin, third_party], "plugins", "--json", "--check")
        found = json.loads(out)
        assert code == 0, f"{name}: {found['broken_references']} {err}"
        assert [report["status"] for report in found["plugins"]] == ["ok", "ok"], name
    everything = sorted(folder for folder in tmp_path.iterdir() if folder != core)
    code, out, err = ask([core, *everything, third_party], "plugins", "--json", "--check")
    assert code == 0, err
    assert [report["status"] for report in json.loads(out)["plugins"]] == ["ok"] * (len(PLUGINS) + 1)


def test_standard_in_a_fresh_environment(dist: Path, tmp_path: Path) -> None:
    """What ``pip install "tramontane[standard]"`` brings answers; no file of the checkout is near."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "--find-links", str(dist), f"tramontane[standard]=={__version__}"], check=True)
    program = str(tmp_path / "env" / "bin" / "tramontane")
    done = subprocess.run(
        [program, "run", "-m", "demo", "-p", "Once upon a time", "--max-tokens", "8", "--json"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert len(json.loads(done.stdout)["token_ids"]) == 8
