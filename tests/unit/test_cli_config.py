# SPDX-License-Identifier: Apache-2.0
"""Where values come from, several models in one file, completions, and the choice of a type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import click
import pytest

from tramontane.cli.app import run
from tramontane.cli.config_file import config_option
from tramontane.cli.fleet import add_models, one_model, read_models
from tramontane.cli.options import ModelOptions, model_options
from tramontane.cli.state import State
from tramontane.errors import ConfigError
from tramontane.host import Host


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRAMONTANE_")]:
        monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return str(path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert run(["config", "--show", "--json", *arguments]) == 0
    found: dict[str, dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_each_value_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, 'quant = "q4k"\ndevice = "cpu"\ndtype = "float32"\n[run]\nraw = true\n')
    monkeypatch.setenv("TRAMONTANE_DEVICE", "cuda")
    found = shown(capsys, "--config", path, "--quant", "8", "--token-source", "literal:secret")
    assert found["quant"] == {"value": "8", "from": "flag"}
    assert found["device"] == {"value": "cuda", "from": "environment: TRAMONTANE_DEVICE"}
    assert found["dtype"] == {"value": "float32", "from": f"file: {path}"}
    assert found["raw"] == {"value": True, "from": f"file: {path}"}
    assert found["topology"] == {"value": None, "from": "default"}
    assert found["token-source"]["value"] == "literal:***"


def test_a_command_that_needs_something_can_be_looked_at_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--of", "quantize")["output"] == {"value": None, "from": "default"}
    assert run(["config", "--show", "--of", "quantise"]) == 2
    assert "quantize" in capsys.readouterr().err


FLEET = """
command = "bench"
threads = 1
[[models]]
name = "small"
model = "demo"
quant = "q8_0"
aliases = ["gpt-4o"]
kv-memory = "64MiB"
[[models]]
model = "other"
preload = true
[models.adapter]
sql = "path/to/it"
"""


def models_of(tmp_path: Path, text: str) -> Any:
    import tomllib

    return read_models(tmp_path / "fleet.toml", tomllib.loads(text)["models"])


def test_models_of_a_file(tmp_path: Path) -> None:
    small, other = models_of(tmp_path, FLEET)
    assert (small.name, small.reference, small.aliases, small.preload) == ("small", "demo", ("gpt-4o",), False)
    assert small.settings["quant"] == "q8_0"
    assert small.settings["kv_memory"] == 64 * 2**20
    assert (other.name, other.reference, other.preload) == ("other", "other", True)
    assert other.settings["adapters"] == {"sql": "path/to/it"}


def test_options_at_the_top_are_for_all_models_and_a_flag_wins(tmp_path: Path) -> None:
    added: dict[str, dict[str, Any]] = {}

    class Recorder:
        def add(self, name: str, reference: str, **settings: Any) -> None:
            added[name] = settings

        def alias(self, alias: str, name: str) -> None:
            assert (alias, name) == ("gpt-4o", "small")

    @click.command("bench")
    @config_option
    @model_options
    @click.pass_obj
    def probe(state: State, model_options: ModelOptions) -> None:
        add_models(cast(Host, Recorder()), state, None, model_options)

    path = write(tmp_path, 'quant = "q6k"\nprefix-cache = false\nallow-pickle = true\n' + FLEET)
    probe.main(["--config", path, "--threads", "3"], obj=State(), standalone_mode=False)
    common = {"threads": 3, "prefix_cache": False, "allow_pickle": True}
    assert added["small"] == {**common, "quant": "q8_0", "kv_memory": 64 * 2**20}
    assert added["other"] == {**common, "quant": "q6k", "adapters": {"sql": "path/to/it"}}
    assert list(added) == ["small", "other"]
    added.clear()
    probe.main(["--config", path, "-m", "other"], obj=State(), standalone_mode=False)
    assert list(added) == ["other", "small"], "the one that is named is the first"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[models]]\nname = "x"', "names no model"),
        ('[[models]]\nmodel = "x"\nqant = "q4k"', "unknown keys: qant\n  -> did you mean quant?"),
        ('[[models]]\nmodel = "x"\n[[models]]\nmodel = "y"\naliases = ["x"]', "names are used twice: x"),
        ('[[models]]\nmodel = "x"\nmax-num-seqs = 0', "models\\[0\\]: .*max-num-seqs"),
        ('[models]\nmodel = "x"', "models must be tables"),
        ('[[models]]\nmodel = "x"\naliases = [1]', "aliases must be a list of names"),
    ],
)
def test_wrong_models(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", "\\?")):
        models_of(tmp_path, text)


def test_from_config_runs_the_command_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tramontane_loader_demo", reason="plans the demo model")
    path = write(tmp_path, 'command = "doctor"\n')
    assert run(["from-config", path]) == 2  # doctor takes no --config, and says so
    assert "--config" in capsys.readouterr().err
    path = write(tmp_path, 'command = "from-config"\n')
    assert run(["from-config", path]) == 1
    assert "would never end" in capsys.readouterr().err
    path = write(tmp_path, "command = 7\n")
    assert run(["from-config", path]) == 1
    assert "must be the name of a command, not 7" in capsys.readouterr().err
    path = write(tmp_path, 'command = "tune"\nmodel = "demo"\n[tune]\nprofile = "fast"\n')
    assert run(["from-config", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "fast"
    path = write(tmp_path, 'command = "sreve"\n')
    assert run(["from-config", path]) == 2
    assert "sreve" in capsys.readouterr().err


def test_one_answer_needs_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FLEET)
    assert run(["run", "--config", path, "-p", "x"]) == 2
    assert capsys.readouterr().err.endswith("name the one that is meant, with -m: small, other\n")

    @click.command("bench")
    @config_option
    @model_options
    @click.pass_obj
    def probe(state: State, model_options: ModelOptions) -> None:
        reference, settings = one_model(state, None, model_options)
        assert (reference, settings["quant"], settings["threads"]) == ("demo", "q8_0", 1)

    probe.main(["--config", path, "-m", "gpt-4o"], obj=State(), standalone_mode=False)
    assert "embedded demo model" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_a_completion_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completions", shell]) == 0
    assert f"{shell}_complete" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "tramontane"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tramontane "$@"\n')
    program.chmod(0o755)
    script = "COMPREPLY=(); COMP_WORDS=(tramontane {words}); COMP_CWORD={at}; "
    script += '_tramontane_completion tramontane; echo "${{COMPREPLY[@]}}"; '
    path = dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}")
    asked = "".join(script.format(words=words, at=at) for words, at in (("perp", 1), ("run --top-", 2)))
    command = ["bash", "--norc", "-c", f'eval "$(tramontane completions bash)"; {asked}']
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    assert [set(line.split()) for line in done.stdout.splitlines()] == [{"perplexity"}, {"--top-k", "--top-p"}]


def test_powershell_completes_by_its_own_protocol() -> None:
    line = dict(os.environ, _TRAMONTANE_COMPLETE="powershell_complete", COMP_WORDS="tramontane perp", COMP_CWORD="perp")
    done = subprocess.run([sys.executable, "-c", "from tramontane.cli import main; main()"], env=line,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.startswith("plain\tperplexity\tMeasure")


def test_tune_recommends_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tramontane_loader_demo", reason="plans the demo model")
    pytest.importorskip("tramontane_quant_gguf", reason="plans its types")
    assert run(["tune", "--profile", "quality", "--json", "--emit-config", str(tmp_path / "a.toml")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in found["candidates"]].count("recommended") == 1
    assert found["candidates"][0] | {"quant": None, "status": "recommended"} == found["candidates"][0]
    sizes = [one["nbytes"] for one in found["candidates"]]
    assert sizes == sorted(sizes, reverse=True)
    assert (tmp_path / "a.toml").read_text() == 'model = "demo"\n'
    assert run(["tune", "--profile", "fast", "--json"]) == 0
    fast = json.loads(capsys.readouterr().out)
    chosen = next(one for one in fast["candidates"] if one["status"] == "recommended")
    assert chosen["quality"] == "good"
    assert chosen["nbytes"] == min(one["nbytes"] for one in fast["candidates"] if one["quality"] == "good")


def test_tune_says_when_nothing_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tramontane_loader_demo", reason="plans the demo model")
    monkeypatch.setattr("tramontane.backends.torch.TorchBackend.free_memory", lambda self: 2**20)
    assert run(["tune", "--backend", "torch"]) == 1
    out, err = capsys.readouterr()
    assert "recommended" not in out
    assert "nothing fits" in err
