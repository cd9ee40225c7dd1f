# SPDX-License-Identifier: Apache-2.0
"""Shared options: where values come from, what they may look like, what the configuration file may hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner

from tramontane.cli.config_file import config_option
from tramontane.cli.loading import model_settings
from tramontane.cli.options import (
    GenerationOptions,
    ModelOptions,
    byte_size,
    generation_options,
    log_option,
    model_options,
    whole_numbers,
)
from tramontane.errors import ConfigError


@click.group()
def group() -> None:
    """A group with two commands."""


@group.command()
@click.option("--rounds", type=int, default=1)
@config_option
@model_options
@generation_options
@log_option
def play(rounds: int, model_options: ModelOptions, generation: GenerationOptions) -> None:
    logging.getLogger("tramontane").warning("played %d", rounds)
    click.echo(
        json.dumps({"rounds": rounds, **attrs.asdict(model_options), "sampling": generation.sampling()}, default=str)
    )


@group.command()
@config_option
@model_options
def other(model_options: ModelOptions) -> None:
    click.echo(json.dumps(attrs.asdict(model_options)))


def _run(*arguments: str, env: dict[str, str] | None = None, command: str = "play") -> dict[str, Any]:
    result = CliRunner().invoke(group, [command, *arguments], env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def _config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return str(path)


def test_flag_then_environment_then_file_then_default(tmp_path: Path) -> None:
    path = _config(tmp_path, 'device = "file"\ndtype = "file"\nrevision = "file"\n')
    env = {"TRAMONTANE_DEVICE": "environment", "TRAMONTANE_DTYPE": "environment", "TRAMONTANE_CONFIG": path}
    found = _run("--device", "flag", env=env)
    assert found["device"] == "flag"
    assert found["dtype"] == "environment"
    assert found["revision"] == "file"
    assert found["quant"] is None
    assert found["prefix_cache"] is True


def test_a_command_s_table_wins_and_others_do_not_see_it(tmp_path: Path) -> None:
    path = _config(
        tmp_path, 'model = "shared"\ntemperature = 0.5\n[play]\nrounds = 3\nmodel = "own"\n[other]\ndtype = "x"\n'
    )
    found = _run("--config", path)
    assert (found["rounds"], found["model"], found["dtype"]) == (3, "own", None)
    assert found["sampling"] == {"temperature": 0.5}
    found = _run("--config", path, command="other")
    assert (found["model"], found["dtype"]) == ("shared", "x")


def test_the_file_takes_lists_tables_and_lone_values(tmp_path: Path) -> None:
    path = _config(
        tmp_path, 'stop = "END"\nkv-memory = "2GiB"\nprefix-cache = false\n[adapter]\nsql = "/a/b"\npoem = "c=d"\n'
    )
    found = _run("--config", path)
    assert found["sampling"] == {"stop": ["END"]}
    assert found["kv_memory"] == 2 * 2**30
    assert found["prefix_cache"] is False
    assert found["adapter"] == [["sql", "/a/b"], ["poem", "c=d"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("temprature = 1", r"unknown keys: temprature \(did you mean temperature\?\)"),
        ("rounds = 1", "unknown keys: rounds"),
        ("[play]\nround = 1", r"round \(did you mean rounds\?\)"),
        ("[elsewhere]\nmodel = 1", "unknown keys: elsewhere"),
        ("play = 3", r"must be a table: \[play\]"),
        ("model = ", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _run("--config", _config(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nowhere\.toml: No such file"):
        _run("--config", str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--adapter", "nameless"], "not of the form NAME=PATH"),
        (["--kv-memory", "much"], "not a size such as 4GiB"),
        (["--max-model-len", "0"], "0 is not in the range"),
        (["--temperature", "warm"], "not a valid float"),
    ],
)
def test_mistakes_in_flags_are_named(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(group, ["play", *arguments])
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("500MB", 500_000_000),
        ("2G", 2 * 10**9),
        ("1.5KiB", 1536),
        ("7", 7),
        (9, 9),
        (" 1 mib ", 1 << 20),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert byte_size(text) == size


def test_lists_of_numbers() -> None:
    parse = whole_numbers(1)
    assert parse("1, 8,1") == (1, 8)
    assert parse(4) == (4,)
    assert parse([2, "3"]) == (2, 3)
    for wrong in ("", "a", "0", "1,,2", "-1", [], 1.5j):
        with pytest.raises(click.BadParameter):
            parse(wrong)


def test_options_that_were_not_given_reach_nobody() -> None:
    assert model_settings(ModelOptions()) == {"prefix_cache": True, "allow_pickle": False}
    options = ModelOptions(offline=True, adapter=(("a", "b"),), capture=False)
    settings = model_settings(options)
    assert settings["offline"] is True
    assert settings["adapters"] == {"a": "b"}
    assert settings["capture"] is False


def test_the_log_goes_to_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    before = list(logging.getLogger("tramontane").handlers)
    _run("--rounds", "2", "--log-file", str(path))
    _run("--rounds", "3", env={"TRAMONTANE_LOG_FILE": str(path)})
    lines = path.read_text().splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["played 2", "played 3"]
    assert logging.getLogger("tramontane").handlers == before
    with pytest.raises(ConfigError, match="cannot write the log"):
        _run("--log-file", str(tmp_path / "no" / "run.log"))


def test_every_model_option_is_a_setting() -> None:
    """What the command line takes, ``LLM`` takes by the same name."""
    from tramontane.api.settings import ModelSettings

    names = {field.name for field in attrs.fields(ModelOptions)} - {"model", "adapter"} | {"adapters"}
    assert names <= set(ModelSettings.__annotations__)
