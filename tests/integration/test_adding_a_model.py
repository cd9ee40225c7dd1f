# SPDX-License-Identifier: Apache-2.0
"""``docs/adding-a-model.md`` keeps its word: its files are a plugin, the kit passes it, and it has parity."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tramontane.plugins import Plugins
from tramontane.testing.checkpoints import write_random
from tramontane.testing.invariants import INVARIANTS, Subject
from tramontane.testing.oracle import Oracle
from tramontane.testing.parity import assert_parity
from tramontane.testing.pytest_plugin import SealPlugins

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-model.md"
LONGEST = 150
FILE = re.compile(r"^\*\*`([^`]+)`\*\*.*?```\w+\n(.*?)```", re.MULTILINE | re.DOTALL)
PACKAGE = "tramontane_arch_arcee"


def files() -> dict[str, str]:
    """Path -> content of every file that the page shows."""
    return {match[1]: match[2] for match in FILE.finditer(PAGE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("arcee")
    (folder / PACKAGE).mkdir()
    (folder / PACKAGE / "__init__.py").touch()
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def plugins(package: Path, seal_plugins: SealPlugins) -> Plugins:
    module: ModuleType = importlib.import_module(f"{PACKAGE}.plugin")
    return seal_plugins(module)


def samples(plugins: Plugins) -> dict[str, Any]:
    found: dict[str, Any] = plugins.catalogs.architectures.get("ArceeForCausalLM").load("samples")()
    return found


def test_a_family_is_short() -> None:
    shown = files()
    assert {Path(name).name for name in shown} == {"pyproject.toml", "plugin.py", "model.py", "samples.py"}
    assert sum(len(content.splitlines()) for content in shown.values()) < LONGEST
    assert "tramontane.plugin_api" in shown["pyproject.toml"]


@pytest.mark.parametrize("name", ["yarn", "biases_tied"])
def test_it_has_parity(plugins: Plugins, name: str, tmp_path: Path) -> None:
    oracle = Oracle.make(samples(plugins)[name])
    assert_parity(Subject(oracle.save(tmp_path), plugins=plugins), oracle)


@pytest.mark.parametrize("check", ["chunked", "captured", "bit_for_bit"])
def test_the_kit_passes_it(plugins: Plugins, check: str, tmp_path: Path) -> None:
    path = write_random(tmp_path, samples(plugins)["yarn"], plugins=plugins)
    INVARIANTS[check](Subject(path, plugins=plugins))


def test_the_families_it_points_to_are_there() -> None:
    named = re.findall(r"\| ([a-z, ]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    root = PAGE.parents[1] / "plugins" / "architectures"
    missing = [name for line in named for name in line.split(", ") if name != "see" and not (root / name).is_dir()]
    assert len(named) > 5
    assert not missing
