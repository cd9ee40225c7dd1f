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
    first, hint = says("run", "-m", str(folder), "-p", "x").split("\n")
    assert first == f"error: the folder {folder} holds no model: it has notes.txt"
    assert re.fullmatch(r"  -> installed loaders: .*safetensors \(\.safetensors\).*", hint)


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
    first, hint = says("run", "-m", "owner/model", "-p", "x").split("\n")
    assert re.fullmatch(
        r"error: owner/model is not in the local cache, and http://127\.0\.0\.1:9 cannot be reached \(.+\)", first
    )
    assert hint == "  -> check the network, a proxy (HTTPS_PROXY) or HF_ENDPOINT; a local folder needs no network"


def test_no_room_on_the_disk(says: Says) -> None:
    first, hint = says("run", "-m", "owner/huge", "-p", "x").split("\n")
    assert re.fullmatch(r"error: owner/huge needs 1073741824\.00 GiB in \S+, which has \d+\.\d+ \w+ left", first)
    assert hint == "  -> make room, or set HF_HOME to a folder on another disk"


def test_a_wrong_type(says: Says) -> None:
    pytest.importorskip("tramontane_quant_gguf", reason="brings the types")
    assert re.fullmatch(
        r"error: there is no quantization type 'q4kk'; did you mean q4k( or \w+)*\?\n"
        r"  -> `tramontane plugins` lists what is installed",
        says("run", "--quant", "q4kk", "-p", "x"),
    )


def test_a_missing_plugin(tmp_path: Path, seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str]) -> None:
    seal_plugins()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"x": torch.zeros(4)}, tmp_path / "model.safetensors")
    assert run(["perplexity", "-m", str(tmp_path), "--text", __file__]) == 1
    assert capsys.readouterr().err == (
        "error: there is no architecture 'LlamaForCausalLM'\n  -> pip install tramontane-arch-llama\n"
    )


MISSING = {
    "run -p x": (
        "error: the model 'demo' comes with a plugin that is not in use\n  -> pip install tramontane-loader-demo"
    ),
    "run -m x.gguf -p x": (
        "error: no loader recognizes x.gguf\n"
        "  -> pip install tramontane-quant-gguf; installed loaders: safetensors (.safetensors)"
    ),
    "run -m model --backend cuda -p x": (
        "error: there is no backend 'cuda'\n  -> pip install tramontane-backend-cuda"
    ),
    "serve": (
        "Usage: tramontane [OPTIONS] COMMAND [ARGS]...\nTry 'tramontane --help' for help.\n\n"
        "Error: there is no command 'serve'\n  -> pip install tramontane-frontend-http"
    ),
}  # fmt: skip
"""Of the core alone: what is typed, and what is said."""


@pytest.mark.parametrize("line", MISSING)
def test_what_is_missing_names_its_package(
    line: str, says: Says, seal_plugins: SealPlugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_plugins()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    save_file({"x": torch.zeros(4)}, tmp_path / "model" / "model.safetensors")
    assert says(*line.split(), code=2 if line == "serve" else 1) == MISSING[line]


def test_a_port_in_use(says: Says) -> None:
    pytest.importorskip("tramontane_frontend_http", reason="brings the server")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert says("serve", "--port", str(port)) == (
            f"error: port {port} is in use\n  -> choose another with --port, or --port 0 for any that is free"
        )


def test_an_unknown_flag(says: Says) -> None:
    assert says("run", "--temprature", "1", "-p", "x", code=2) == (
        "Usage: tramontane run [OPTIONS] [MODEL]\nTry 'tramontane run --help' for help.\n\n"
        "Error: No such option '--temprature'. (Did you mean one of: '--capture', '--chat-template', '--temperature'?)"
    )


def test_a_bad_file(says: Says, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("quant = \n")
    assert says("run", "--config", str(path), "-p", "x") == (
        f"error: {path} is not valid TOML: Invalid value (at line 1, column 9)\n"
        '  -> mend that place; a line is key = value, and text stands in quotes: quant = "q4k"'
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
    assert says("run", "--device", "cuda:7", "-p", "x") == (
        "error: there is no device 'cuda:7' here\n"
        f"  -> torch sees {torch.cuda.device_count()} CUDA devices; auto takes what is there"
    )


def test_too_little_memory(says: Says) -> None:
    said = says("run", "--kv-memory", "1KB", "-p", "x")
    assert re.fullmatch(
        r"error: the cache gets 1000 B, but it needs 2 blocks of [\d.]+ KiB\n"
        r"  -> give it more with --kv-memory, free memory, or use a smaller model or type",
        said,
    )


def test_a_prompt_that_is_too_long(says: Says) -> None:
    first, hint = says("run", "--raw", "--max-model-len", "64", "-p", "word " * 300).split("\n")
    found = re.fullmatch(
        r"error: the prompt has (\d+) tokens; the longest that fits is 63 \(a sequence may have 64 tokens\)", first
    )
    assert found is not None
    assert int(found[1]) >= 300
    assert hint == "  -> shorten it, or raise max_model_len if the model and the memory allow it"


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "everywhere",
            "the device map 'everywhere' has a part 'everywhere' that is not DEVICE=LAYERS\n",
        ),
        ("cpu=rest,cpu=rest", "the device map 'cpu=rest,cpu=rest' gives the rest of the layers to two devices"),
        ("cpu=1000", "the device map names 1000 layers, and the model has 5\n  -> write rest for what is left"),
    ],
)
def test_a_device_map_that_fits_no_model(says: Says, given: str, said: str) -> None:
    assert says("run", "--device-map", given, "-p", "x").startswith(f"error: {said}")


def test_an_unreadable_gguf(says: Says, tmp_path: Path) -> None:
    pytest.importorskip("tramontane_quant_gguf", reason="reads such files")
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 100)
    assert re.fullmatch(
        rf"error: {re.escape(str(path))}: 18446744073709551615 tensors cannot be in a file of 108 bytes "
        r"\(the limit is \d+\)\n  -> the file is damaged; fetch or convert it again",
        says("run", "-m", str(path), "-p", "x"),
    )


def test_standard_input_is_closed(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert says("run") == 'error: there is no prompt: standard input is empty\n  -> give one with -p "..."'


def test_a_command_that_does_not_exist(says: Says) -> None:
    assert says("rnu", code=2) == (
        "Usage: tramontane [OPTIONS] COMMAND [ARGS]...\nTry 'tramontane --help' for help.\n\n"
        "Error: there is no command 'rnu'; did you mean run?\n  -> `tramontane plugins` lists what is installed"
    )


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
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == (  # the first line ends the one that shows ^C
        "\nstopped while loading; files that were downloaded whole are kept, so the same command goes on from there\n"
    )


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    run(["doctor", "--json"])
    lines = {line["title"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["compiler"]["status"] == "warn"
    assert lines["compiler"]["message"] == "none of c++, g++, clang++ on the path"
    assert lines["compiler"]["hint"] == (
        "everything works without one, on torch's own kernels; install g++ or clang++ to build faster ones"
    )


# --- plugins that do not fit ------------------------------------------------------------------------------------------

GIVES_A_COMMAND = """
from tramontane import hookimpl
from tramontane.records import CommandSpec

@hookimpl
def tramontane_commands():
    return CommandSpec(name="twin", command="twin:command", help="Say who won.")
"""


def install(folder: Path, name: str, code: str, api: str = "1") -> None:
    """A plugin as pip leaves it: a module, and metadata with its entry points."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"tramontane_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tramontane-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[tramontane.plugins]\n{name} = {name}\n\n[tramontane.plugin_api]\n{api} = {name}\n"
    )


def says_beside(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program with what is installed in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **variables}
    command = [sys.executable, "-m", "tramontane", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_an_old_plugin(tmp_path: Path) -> None:
    install(tmp_path, "old", "raise AssertionError('imported')", api="0")
    said = says_beside(tmp_path, "plugins")
    assert said.returncode == 0
    assert said.stderr == (
        "WARNING: plugin old (tramontane-old 1.0) is not compatible: written for plugin API 0, this core accepts 1; "
        "try `pip install -U tramontane-old`\n"
    )


def test_two_plugins_with_one_name(tmp_path: Path) -> None:
    install(tmp_path, "left", GIVES_A_COMMAND)
    install(tmp_path, "right", GIVES_A_COMMAND)
    assert says_beside(tmp_path, "twin").stderr == (
        "error: command 'twin' is claimed by left (tramontane-left 1.0) and by right (tramontane-right 1.0)\n"
        "  -> uninstall one of them, or decide with TRAMONTANE_PREFER=tramontane-left or "
        "TRAMONTANE_PREFER=tramontane-right\n"
    )
    assert "command 'twin'" not in says_beside(tmp_path, "plugins", TRAMONTANE_PREFER="tramontane-left").stdout
