# SPDX-License-Identifier: Apache-2.0
"""Broken plugins, each really installed beside the core: its line in the report, and a host that answers every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from attrs import frozen

from tramontane.errors import ConflictError, PluginError, UnknownNameError
from tramontane.plugins import Plugins, Settings, Status, discovery

PREAMBLE = "from tramontane import hookimpl\nfrom tramontane.records import LoaderSpec\n"
TWIN = """
@hookimpl
def tramontane_loaders():
    return LoaderSpec(name="twin", open="json:loads", detect="json:loads")
"""


@frozen
class Broken:
    """A plugin with one fault, and what the report must say of it."""

    name: str
    status: Status
    line: str
    """What the row's error begins with."""
    code: str = TWIN
    requires: tuple[str, ...] = ()
    plugin_api: str = "1"


BROKEN = (
    Broken("import-error", Status.FAILED, "ModuleNotFoundError: No module named 'nowhere' [", "import nowhere"),
    Broken("syntax-error", Status.FAILED, "SyntaxError: invalid syntax (", "def broken(:"),
    Broken("assertion", Status.FAILED, "AssertionError: no GPU [", "assert False, 'no GPU'"),
    Broken("exits", Status.FAILED, "SystemExit: it tried to end the program (exit code 3) [", "raise SystemExit(3)"),
    Broken(
        "wrong-argument",
        Status.FAILED,
        "PluginValidationError: Plugin 'wrong-argument",
        "@hookimpl\ndef tramontane_loaders(nonsense): return []",
    ),
    Broken(
        "unknown-hook",
        Status.PARTLY_UNKNOWN,
        "this core does not know its hook tramontane_teleport",
        "@hookimpl\ndef tramontane_teleport(): return []\n" + TWIN,
    ),
    Broken(
        "half-way",
        Status.FAILED,
        "RuntimeError: the second one [",
        """
        @hookimpl
        def tramontane_loaders():
            yield LoaderSpec(name="first", open="json:loads", detect="json:loads")
            raise RuntimeError("the second one")
        """,
    ),
    Broken(
        "wrong-api",
        Status.INCOMPATIBLE,
        "loader 'future' is written for version 99 of LoaderSpec, this core accepts 1",
        """
        @hookimpl
        def tramontane_loaders():
            return LoaderSpec(name="future", open="json:loads", detect="json:loads", api=99)
        """,
    ),
    Broken(
        "newer-contract",
        Status.INCOMPATIBLE,
        "written for plugin API 9, this core accepts 1; try `pip install -U tramontane`",
        "raise AssertionError('imported')",
        plugin_api="9",
    ),
    Broken(
        "newer-core",
        Status.INCOMPATIBLE,
        "needs tramontane>=9.0, this is 0.",
        "raise AssertionError('imported')",
        requires=("tramontane>=9.0",),
    ),
    Broken(
        "missing-requirement",
        Status.INCOMPATIBLE,
        'needs no-such-thing>=2, which is not installed; try `pip install "no-such-thing>=2"`',
        "raise AssertionError('imported')",
        requires=("tramontane>=0.1", "no-such-thing>=2"),
    ),
    Broken(
        "unreadable-requirement",
        Status.INCOMPATIBLE,
        "states a requirement that cannot be read: 'what is this'",
        "raise AssertionError('imported')",
        requires=("what is this",),
    ),
    Broken(
        "wrong-record",
        Status.FAILED,
        "PluginError: a loader must be a LoaderSpec, got str [",
        "@hookimpl\ndef tramontane_loaders(): return ['safetensors']",
    ),
    Broken(
        "wrong-return",
        Status.FAILED,
        "PluginError: tramontane_loaders returned str; it must return records [",
        "@hookimpl\ndef tramontane_loaders(): return 'safetensors'",
    ),
    Broken(
        "malformed-reference",
        Status.FAILED,
        "PluginError: LoaderSpec 'x': open must be a lazy string 'package.module:Name', got 'no colon'",
        "@hookimpl\ndef tramontane_loaders(): return LoaderSpec(name='x', open='no colon', detect='a:b')",
    ),
    Broken(
        "stutters",
        Status.FAILED,
        "PluginError: it gives two loaders for 'twin'",
        """
        @hookimpl
        def tramontane_loaders():
            return [LoaderSpec(name="twin", open="json:loads", detect="json:loads") for _ in range(2)]
        """,
    ),
    Broken(
        "endless",
        Status.FAILED,
        "PluginError: tramontane_loaders returned more than 10000 records",
        """
        @hookimpl
        def tramontane_loaders():
            while True:
                yield LoaderSpec(name="again", open="json:loads", detect="json:loads")
        """,
    ),
)

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Install a plugin: a module and the metadata that pip would write, in a folder for the import path."""

    def install(
        name: str, code: str, requires: tuple[str, ...] = (), plugin_api: str = "1", version: str = "1.0"
    ) -> Path:
        module = "broken_" + name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(PREAMBLE + dedent(code), encoding="utf-8")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = [f"Metadata-Version: 2.1\nName: broken-{name}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(
            f"[tramontane.plugins]\n{name} = {module}\n\n[tramontane.plugin_api]\n{plugin_api} = {module}\n",
            encoding="utf-8",
        )
        return tmp_path

    return install


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plugins]]:
    """Discover what is installed in the folder, and load it after the core's own plugin, in this process."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(settings: Settings | None = None) -> Plugins:
        found = [candidate for candidate in discovery.installed() if _is_ours(candidate)]
        return Plugins.load(found, settings or Settings())

    yield load
    for name in [name for name in sys.modules if name.startswith("broken_")]:
        del sys.modules[name]


def _is_ours(candidate: discovery.Candidate) -> bool:
    owner = candidate.id.distribution
    return candidate.is_core or owner is None or owner.startswith("broken-")


def _tramontane(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with ``folder`` on the import path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRAMONTANE_")}
    path = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "tramontane", *arguments],
        env={**environment, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_plugin_is_a_line_of_the_report(
    broken: Broken, install: Install, load: Callable[..., Plugins]
) -> None:
    install(broken.name, broken.code, broken.requires, broken.plugin_api)
    install("healthy", TWIN.replace("twin", "healthy"))
    plugins = load()
    row = next(report for report in plugins.reports if report.id.name == broken.name)
    assert row.status is broken.status
    assert row.error is not None
    assert row.error.startswith(broken.line), row.error
    assert "\n" not in row.error
    assert plugins.catalogs.loaders.find("healthy") is not None
    assert plugins.catalogs.loaders.find("safetensors") is not None
    in_use = broken.status is Status.PARTLY_UNKNOWN
    assert (plugins.catalogs.loaders.find("twin") is not None) is in_use
    for half in ("first", "again", "future"):
        assert half not in plugins.catalogs.loaders, "a plugin that failed left something behind"
    if not in_use:
        assert row.contributions == ()
        with pytest.raises(UnknownNameError, match=f"plugin {broken.name} \\(broken-{broken.name} 1.0\\)"):
            plugins.catalogs.loaders.get("twin")


def test_the_host_answers_with_all_of_them_at_once(install: Install) -> None:
    for broken in BROKEN:
        folder = install(broken.name, broken.code, broken.requires, broken.plugin_api)
    answer = _tramontane(folder, "plugins", "--json")
    assert answer.returncode == 0, answer.stderr
    rows = {row["name"]: row for row in json.loads(answer.stdout)["plugins"]}
    for broken in BROKEN:
        assert rows[broken.name]["status"] == broken.status
        assert rows[broken.name]["error"].startswith(broken.line)
        said = [line for line in answer.stderr.splitlines() if f"plugin {broken.name} (" in line]
        assert len(said) == 1, "one line on stderr for each"
    assert rows["core"]["status"] == "ok"
    assert _tramontane(folder, "--help").returncode == 0


@pytest.mark.full
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_the_host_answers_with_each_of_them_alone(broken: Broken, install: Install) -> None:
    folder = install(broken.name, broken.code, broken.requires, broken.plugin_api)
    answer = _tramontane(folder, "plugins")
    assert answer.returncode == 0, answer.stderr
    assert any(line.startswith(f"{broken.name}: {broken.line}") for line in answer.stdout.splitlines())


def test_two_distributions_with_one_name(install: Install, load: Callable[..., Plugins]) -> None:
    install("left", TWIN)
    install("right", TWIN)
    loaders = load().catalogs.loaders
    with pytest.raises(ConflictError) as caught:
        loaders.get("twin")
    assert "left (broken-left 1.0)" in str(caught.value)
    assert "right (broken-right 1.0)" in str(caught.value)
    assert "TRAMONTANE_PREFER=broken-left or TRAMONTANE_PREFER=broken-right" in str(caught.value)
    assert loaders.get("safetensors").name == "safetensors", "other names are not touched"
    assert "twin" not in loaders.names()
    chosen = load(Settings(prefer=("nobody", "broken-right", "left"))).catalogs.loaders
    assert chosen.get("twin").plugin == "right (broken-right 1.0)"
    assert chosen.conflicts() == ()


def test_strict_mode_raises_and_names_each(install: Install, load: Callable[..., Plugins]) -> None:
    for broken in BROKEN[:3]:
        install(broken.name, broken.code)
    with pytest.raises(PluginError) as caught:
        load(Settings(strict=True))
    for broken in BROKEN[:3]:
        assert broken.line in str(caught.value)


def test_strict_mode_from_the_environment(install: Install) -> None:
    folder = install("exits", "raise SystemExit(3)")
    answer = _tramontane(folder, "--help", TRAMONTANE_STRICT_PLUGINS="1")
    assert answer.returncode == 1
    assert "plugin exits (broken-exits 1.0) failed to load: SystemExit" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_block_and_allow_lists_act_before_the_import(install: Install) -> None:
    folder = install("loud", "print('IMPORTED')")
    for variables in ({"TRAMONTANE_PLUGINS_OFF": "broken_l*"}, {"TRAMONTANE_PLUGINS": "arch-llama"}):
        answer = _tramontane(folder, "plugins", "--json", **variables)
        assert answer.returncode == 0, answer.stderr
        assert "IMPORTED" not in answer.stdout
        rows = {row["name"]: row for row in json.loads(answer.stdout)["plugins"]}
        assert rows["loud"]["status"] == "off"
        assert rows["core"]["status"] == "ok", "the core's own plugin cannot be turned off"
        assert next(iter(variables)) in rows["loud"]["error"]
    assert "IMPORTED" in _tramontane(folder, "plugins").stdout


def test_ctrl_c_passes_the_guard(install: Install, load: Callable[..., Plugins]) -> None:
    install("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_damaged_metadata_is_a_line_too(tmp_path: Path, install: Install, load: Callable[..., Plugins]) -> None:
    install("healthy", TWIN)
    for name, text in (
        ("no_name", "[tramontane.plugins]\na = b\n"),
        ("torn", "[tramontane.plugins]\nno equals sign\n"),
    ):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(text, encoding="utf-8")
    (tmp_path / "torn-1.0.dist-info" / "METADATA").write_text("Name: broken-torn\nVersion: 1.0\n", encoding="utf-8")
    plugins = load()
    damaged = {report.id.name: report for report in plugins.reports if "damaged" in (report.error or "")}
    assert set(damaged) == {"no_name-1.0.dist-info", "torn-1.0.dist-info"}
    assert {report.status for report in damaged.values()} == {Status.FAILED}
    assert plugins.catalogs.loaders.get("twin").plugin == "healthy (broken-healthy 1.0)"


def test_a_distribution_that_lies_on_the_path_twice_counts_once(
    tmp_path: Path, install: Install, load: Callable[..., Plugins], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install("twice", TWIN)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in ("broken_twice.py", "broken_twice-1.0.dist-info"):
        (copy / file).symlink_to(folder / file)
    monkeypatch.syspath_prepend(str(copy))
    rows = [report for report in load().reports if report.id.name == "twice"]
    assert [row.status for row in rows] == [Status.OK]


def test_a_hook_without_its_marker_is_noted(install: Install, load: Callable[..., Plugins]) -> None:
    install("unmarked", "def tramontane_loaders():\n    return []")
    row = load().reports[-1]
    assert row.status is Status.OK
    assert row.notes == ("tramontane_loaders has no @hookimpl, so it is never called",)


def test_an_optional_hook_may_be_unknown(install: Install, load: Callable[..., Plugins]) -> None:
    install("optional", "@hookimpl(optionalhook=True)\ndef tramontane_teleport():\n    return []")
    assert load().reports[-1].status is Status.OK
