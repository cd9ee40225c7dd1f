# SPDX-License-Identifier: Apache-2.0
"""Ways to get it wrong on the command line: each has its message, and the message says what to do next."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tramontane.cli.app import run
from tramontane.testing.fake_hub import FakeHub, Repository
from tramontane.testing.pytest_plugin import SealPlugins

pytest.importorskip("tramontane_loader_demo", reason="asks the demo model")

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"x" * 1000}

Says = Callable[..., str]


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub on the loopback interface, so that no mistake asks the real one."""
    for name in [name for name in os.environ if name.startswith(("TRAMONTANE_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    repositories = {
        "owner/gated": Repository(FILES, gated=True),
        "owner/huge": Repository(FILES, claims={"model.safetensors": 2**60}),
    }
    with FakeHub(repositories, {"good"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a command that fails; what it says on standard error, without the line about the demo model."""

    def call(*arguments: str, code: int = 1) -> str:
        assert run(list(arguments)) == code
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if not line.startswith("This is the embedded demo"))

    return call


def test_a_mistyped_model(says: Says, hub: FakeHub) -> None:
    assert says("run", "-m", "owner/lama", "-p", "x") == (
        f"error: there is no local folder 'owner/lama' and no repository of that name at {hub.endpoint}\n"
        "  -> check the spelling (owner/name); if it is private, a token is needed"
    )


def test_a_mistyped_path(says: Says, tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    assert says("run", "-m", str(tmp_path / "lama"), "-p", "x") == (
        f"error: there is no file or directory '{tmp_path / 'lama'}'\n"
        f"  -> did you mean {tmp_path / 'llama'}? Nothing was downloaded"
    )


def test_a_folder_without_a_model(says: Says, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "notes.txt").touch()
    said = says("run", "-m", str(folder), "-p", "x")
    assert said.startswith(f"error: the folder {folder} holds no model: it has notes.txt\n")
    assert "safetensors (.safetensors)" in said


def test_a_folder_without_a_configuration(says: Says, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"x": torch.zeros(4)}, folder / "model.safetensors")
    assert says("run", "-m", str(folder), "-p", "x") == (
        f"error: {folder} has no config.json, so the model's architecture is unknown\n"
        "  -> give the directory of a whole Hugging Face checkpoint"
    )


def test_a_gated_repository(says: Says, hub: FakeHub) -> None:
    assert says("run", "-m", "owner/gated", "-p", "x") == (
        "error: owner/gated is gated: its owner asks people to accept terms before they download it\n"
        f"  -> accept them at {hub.endpoint}/owner/gated, then run `tramontane login` or set HF_TOKEN to a token of "
        "the same account"
    )


def test_no_network(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = says("run", "-m", "owner/model", "-p", "x")
    assert said.startswith("error: owner/model is not in the local cache, and http://127.0.0.1:9 cannot be reached (")
    assert said.endswith("a local folder needs no network")


def test_no_room_on_the_disk(says: Says) -> None:
    said = says("run", "-m", "owner/huge", "-p", "x")
    assert re.search(r"owner/huge needs 1073741824\.00 GiB in .*, which has \d+\.\d+ \w+ left", said)
    assert said.endswith("make room, or set HF_HOME to a folder on another disk")


def test_a_wrong_type(says: Says) -> None:
    pytest.importorskip("tramontane_quant_gguf", reason="brings the types")
    assert says("run", "--quant", "q4kk", "-p", "x").startswith(
        "error: there is no quantization type 'q4kk'; did you mean q4k"
    )


def test_a_missing_plugin(tmp_path: Path, seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    seal_plugins()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"x": torch.zeros(4)}, tmp_path / "model.safetensors")
    assert run(["perplexity", "-m", str(tmp_path), "--text", __file__]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: there is no architecture 'LlamaForCausalLM'")
    assert "pip install tramontane-arch-llama" in said


def test_a_port_in_use(says: Says) -> None:
    pytest.importorskip("tramontane_frontend_http", reason="brings the server")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = says("serve", "--port", str(port))
    assert f"port {port}" in said
    assert "--port" in said


def test_an_unknown_flag(says: Says) -> None:
    said = says("run", "--temprature", "1", "-p", "x", code=2)
    assert "No such option '--temprature'" in said
    assert "--temperature" in said


def test_a_bad_file(says: Says, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("quant = \n")
    assert says("run", "--config", str(path), "-p", "x") == (
        f"error: {path} is not valid TOML: Invalid value (at line 1, column 9)"
    )
    path.write_text('qant = "q4k"\n')
    assert says("run", "--config", str(path), "-p", "x") == (
        f"error: {path}: unknown keys: qant (did you mean quant?)\n  -> keys are the long names of options"
    )


def test_a_type_that_is_no_number_type(says: Says) -> None:
    assert says("run", "--dtype", "int4", "-p", "x") == (
        "error: there is no weight type 'int4'\n  -> known types: float64, float32, float16, bfloat16"
    )


def test_a_device_that_is_not_there(says: Says) -> None:
    assert says("run", "--device", "cuda:7", "-p", "x").startswith("error: there is no device 'cuda:7' here\n  -> ")


def test_too_little_memory(says: Says) -> None:
    said = says("run", "--kv-memory", "1KB", "-p", "x")
    assert re.match(r"error: the cache gets 1000 B, but it needs 2 blocks of [\d.]+ KiB\n  -> give it more", said)


def test_a_prompt_that_is_too_long(says: Says) -> None:
    said = says("run", "-p", "word " * 3000)
    assert re.search(r"the prompt has \d+ tokens", said)
    assert "512" in said


def test_what_no_plugin_can_do_is_refused(says: Says) -> None:
    assert says("run", "--device-map", "auto", "-p", "x") == (
        "error: nothing installed can use device_map\n  -> leave it out"
    )


def test_an_adapter_of_another_base(says: Says, tmp_path: Path) -> None:
    pytest.importorskip("tramontane_adapter_lora", reason="opens adapters")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "owner/other"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    at = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    pairs = {at.format(layer, "A"): torch.ones(2, 4096) for layer in (0, 99)}
    pairs |= {at.format(layer, "B"): torch.ones(4096, 2) for layer in (0, 99)}
    save_file(pairs, tmp_path / "adapter_model.safetensors")
    said = says("run", "--adapter", f"sql={tmp_path}", "-p", "x")
    module = "model.layers.{}.self_attn.q_proj"
    assert re.fullmatch(
        rf"error: the adapter {re.escape(str(tmp_path))} does not fit \w+:\n"
        rf"  1 modules that the model does not have: {re.escape(module.format(99))}\n"
        rf"  1 modules of another shape: {re.escape(module.format(0))} is 4096 -> 4096, the model's is \d+ -> \d+\n"
        r"  -> it says it was made for owner/other; load it beside the model it was trained on, .*",
        said,
    )


def test_an_adapter_that_is_not_there(says: Says, tmp_path: Path) -> None:
    pytest.importorskip("tramontane_adapter_lora", reason="opens adapters")
    assert says("run", "--adapter", f"sql={tmp_path / 'x'}", "-p", "x").startswith(
        f"error: there is no file or directory '{tmp_path / 'x'}'"
    )
    assert says("run", "--adapter", f"sql={tmp_path}", "-p", "x").startswith(
        f"error: no kind of adapter recognizes {tmp_path} (it is empty)\n  -> installed kinds: lora"
    )
    assert "there is no adapter of that name; give it with --adapter" in says("run", "--use-adapter", "a", code=2)


def test_an_unreadable_gguf(says: Says, tmp_path: Path) -> None:
    pytest.importorskip("tramontane_quant_gguf", reason="reads such files")
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 100)
    assert says("run", "-m", str(path), "-p", "x").startswith(f"error: {path}: ")


def test_standard_input_is_closed(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert says("run") == 'error: there is no prompt: standard input is empty\n  -> give one with -p "..."'


def test_a_command_that_does_not_exist(says: Says) -> None:
    assert "there is no command 'rnu'; did you mean run?" in says("rnu", code=2)


SLOW = """
import time
from tramontane import hookimpl

@hookimpl
def tramontane_resolve_model(ref, options):
    print("loading", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_while_loading(tmp_path: Path) -> None:
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW)
    command = [sys.executable, "-m", "tramontane", "--plugin", str(plugin), "run", "-m", "x", "-p", "x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == ""


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    run(["doctor", "--json"])
    lines = {line["title"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["compiler"]["status"] == "warn"
    assert lines["compiler"]["hint"]
