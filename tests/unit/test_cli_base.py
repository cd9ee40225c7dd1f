# SPDX-License-Identifier: Apache-2.0
"""The command line's base: exit codes, messages, lazy commands, tables."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from tramontane import __version__, hookimpl
from tramontane.cli.app import run
from tramontane.cli.output import paint, print_json, print_table
from tramontane.cli.state import verbosity_options
from tramontane.errors import ModelNotFoundError
from tramontane.records import CommandSpec, LoaderSpec
from tramontane.testing.pytest_plugin import SealPlugins

Exits = Callable[..., int]


def commands(**callbacks: Callable[[], object]) -> ModuleType:
    """A plugin whose commands run the callbacks."""
    module = ModuleType("commands_of_a_test")

    @hookimpl
    def tramontane_commands() -> list[CommandSpec]:
        return [CommandSpec(name=name, command=f"{module.__name__}:{name}", help=f"Do {name}.") for name in callbacks]

    made = {name: click.command()(verbosity_options(callback)) for name, callback in callbacks.items()}
    vars(module).update(made, tramontane_commands=tramontane_commands)
    return module


@pytest.fixture
def exits(seal_plugins: SealPlugins, monkeypatch: pytest.MonkeyPatch) -> Exits:
    """Run the command line with a command ``go`` that calls a function, and return the exit code."""

    def exits(callback: Callable[[], object], *arguments: str) -> int:
        plugin = commands(go=callback)
        monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
        seal_plugins(plugin)
        return run(["go", *arguments])

    return exits


def test_a_command_that_ends_well(exits: Exits) -> None:
    assert exits(lambda: None) == 0
    assert exits(lambda: 3) == 3
    assert exits(lambda: click.get_current_context().exit(4)) == 4


def test_an_error_is_a_message_and_a_hint(exits: Exits, capsys: pytest.CaptureFixture[str]) -> None:
    def go() -> None:
        raise ModelNotFoundError("there is no model x", hint="look at the name")

    assert exits(go) == 1
    assert capsys.readouterr().err == "error: there is no model x\n  -> look at the name\n"
    assert exits(go, "-v") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert exits(go, "-vv") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_error_says_so(exits: Exits, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(lambda: 1 / 0) == 1
    said = capsys.readouterr().err
    assert "error: ZeroDivisionError: division by zero" in said
    assert "which -vv prints" in said
    assert "Traceback" not in said


def test_ctrl_c(exits: Exits) -> None:
    def go() -> None:
        raise KeyboardInterrupt

    assert exits(go) == 130


def test_wrong_usage(exits: Exits, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(lambda: None, "--nonsense") == 2
    assert "No such option" in capsys.readouterr().err


def test_an_unknown_command_names_what_is_near(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctr"]) == 2
    assert "there is no command 'doctr'; did you mean doctor?" in capsys.readouterr().err


def test_a_command_that_two_plugins_claim(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = commands(doctor=lambda: None)
    seal_plugins(plugin)
    assert run(["doctor"]) == 1
    assert "command 'doctor' is claimed by commands_of_a_test and by core" in capsys.readouterr().err
    assert run(["--help"]) == 0


def test_a_command_that_is_none(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = ModuleType("no_command")

    @hookimpl
    def tramontane_commands() -> list[CommandSpec]:
        return [
            CommandSpec(name="odd", command="json:loads", help="x"),
            CommandSpec(name="gone", command="no:x", help="x"),
        ]

    plugin.tramontane_commands = tramontane_commands  # type: ignore[attr-defined]
    seal_plugins(plugin)
    assert run(["odd"]) == 1
    assert "command 'odd' of plugin no_command: 'json:loads' is no click.Command" in capsys.readouterr().err
    assert run(["gone"]) == 1
    assert "ModuleNotFoundError: No module named 'no'" in capsys.readouterr().err


def test_help_lists_commands_without_importing_any(
    seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = ModuleType("helpful")

    @hookimpl
    def tramontane_commands() -> list[CommandSpec]:
        return [
            CommandSpec(name="haiku", command="no_such_module:command", help="Write a haiku."),
            CommandSpec(name="secret", command="no_such_module:command", help="Hush.", hidden=True),
        ]

    plugin.tramontane_commands = tramontane_commands  # type: ignore[attr-defined]
    seal_plugins(plugin)
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +haiku +Write a haiku\.$", said, re.MULTILINE)
    assert "secret" not in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tramontane, version {__version__}\n"


def test_a_file_may_bring_a_command(
    seal_plugins: SealPlugins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "haiku_plugin.py"
    file.write_text(
        "import click\nfrom tramontane import hookimpl\nfrom tramontane.records import CommandSpec\n"
        "@click.command()\ndef command(): click.echo('wind over the hill')\n"
        "@hookimpl\ndef tramontane_commands():\n"
        "    return CommandSpec(name='haiku', command='haiku_plugin:command', help='Write a haiku.')\n",
        encoding="utf-8",
    )
    assert run(["--plugin", str(file), "haiku"]) == 0
    assert capsys.readouterr().out == "wind over the hill\n"
    assert run(["--plugin", str(tmp_path / "none.py"), "haiku"]) == 1


def test_plugins_as_json_and_checked(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = ModuleType("dangling")

    @hookimpl
    def tramontane_loaders() -> LoaderSpec:
        return LoaderSpec(name="dangling", open="json:nothing", detect="json:loads")

    plugin.tramontane_loaders = tramontane_loaders  # type: ignore[attr-defined]
    seal_plugins(plugin, core=False)
    assert run_with(seal_plugins, plugin, "plugins", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["plugins"]
    assert [(row["name"], row["status"], row["contributions"]) for row in rows][-1] == (
        "dangling",
        "ok",
        ["loader dangling"],
    )
    assert run_with(seal_plugins, plugin, "plugins", "--check") == 1
    assert "loader 'dangling' of plugin dangling points to 'json:nothing'" in capsys.readouterr().out


def run_with(seal_plugins: SealPlugins, plugin: ModuleType, *arguments: str) -> int:
    seal_plugins(plugin)
    return run(arguments)


def test_doctor_as_json(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--json"])
    lines = json.loads(capsys.readouterr().out)
    assert {"title", "status", "message", "hint"} == set(lines[0])
    assert {line["title"] for line in lines} >= {"python", "torch"}


@pytest.mark.parametrize(
    ("arguments", "level"),
    [((), "WARNING"), (("-q",), "ERROR"), (("-v",), "INFO"), (("-vv",), "DEBUG"), (("-v", "-v", "-v"), "DEBUG")],
)
def test_quiet_and_verbose_set_the_log(arguments: tuple[str, ...], level: str, exits: Exits) -> None:
    log = logging.getLogger("tramontane")
    before = log.level
    seen: list[str] = []
    assert exits(lambda: seen.append(logging.getLevelName(log.level)), *arguments) == 0
    assert seen == [level]
    assert log.level == before


# --- output -----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_colour_where_nobody_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", Terminal(), fg="red") == "\x1b[31mx\x1b[0m"
    assert paint("x", io.StringIO(), fg="red") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", Terminal(), fg="red") == "x"


def test_a_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "ms"), [("a", "1.0"), ("longer", "100.0")], right=("ms",))
    assert capsys.readouterr().out == "name       ms\na         1.0\nlonger  100.0\n"


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(("name", "ms"), [("a", "1.0")], right=("ms",))
    assert "name" in terminal.getvalue()
    assert "─" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()


def test_json_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"é": 1})
    assert json.loads(capsys.readouterr().out) == {"é": 1}
    print_json({"é": 1})
    assert "é" in capsys.readouterr().out
