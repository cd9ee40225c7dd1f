# SPDX-License-Identifier: Apache-2.0
"""Model references against a hub on the loopback interface."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tramontane.errors import (
    AuthenticationError,
    CheckpointError,
    ConfigError,
    DiskFullError,
    GatedModelError,
    HubError,
    ModelNotFoundError,
    OfflineError,
    TramontaneError,
    UnsafeFormatError,
)
from tramontane.hub import choose_files, read_token, resolve
from tramontane.progress import ProgressEvent
from tramontane.testing.fake_hub import FakeHub, Repository

FILES = {
    "config.json": b'{"architectures": ["FooForCausalLM"]}',
    "tokenizer.json": b"{}",
    "README.md": b"# Foo",
    "model.safetensors": b"x" * 100_000,
    "consolidated.safetensors": b"y" * 100_000,
    "pytorch_model.bin": b"z" * 100_000,
    "modeling_foo.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with FakeHub({"foo/bar": Repository(FILES, revisions=("main", "v1"))}, {"good"}) as running:
        yield running


@pytest.fixture
def ask(hub: FakeHub, tmp_path: Path) -> Any:
    """``resolve`` with the fake hub and an empty cache."""

    def call(ref: str, **options: Any) -> Path:
        return resolve(
            ref, **{"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", "token_source": "none"} | options
        )

    return call


def test_a_local_path_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a local path must not use the network")

    monkeypatch.setattr(socket, "socket", refuse)
    file = tmp_path / "model.safetensors"
    file.touch()
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(file)) == file


@pytest.mark.parametrize(
    "ref", ["./missing", "/missing/model", "a/b/c", "model.safetensors", "~/missing", "", "a\0b.safetensors"]
)
def test_a_missing_path_is_not_looked_up_on_the_hub(hub: FakeHub, ask: Any, ref: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no file or directory"):
        ask(ref)
    assert hub.requests == []


def test_only_the_needed_files_are_fetched(ask: Any) -> None:
    folder = ask("foo/bar")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_second_look_fetches_nothing(hub: FakeHub, ask: Any) -> None:
    first = ask("foo/bar")
    hub.requests.clear()
    assert ask("foo/bar") == first
    assert [path for _, path, _ in hub.requests] == ["/api/models/foo/bar"]


def test_progress_adds_up(ask: Any) -> None:
    events: list[ProgressEvent] = []
    ask("foo/bar", progress=events.append)
    size = sum(len(FILES[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert events[-1].done == events[-1].total == size
    assert {event.phase for event in events} == {"download"}


def test_a_revision_is_found_and_a_wrong_one_is_named(ask: Any) -> None:
    assert ask("foo/bar", revision="v1") == ask("foo/bar")
    with pytest.raises(ModelNotFoundError, match="has no revision 'v2'"):
        ask("foo/bar", revision="v2")
    with pytest.raises(ModelNotFoundError):
        ask("foo/bar", revision="../../escape")


def test_a_local_path_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no revision"):
        resolve(tmp_path, revision="v1")


def test_the_five_failures_have_five_messages(hub: FakeHub, ask: Any, tmp_path: Path, monkeypatch: Any) -> None:
    hub.repositories["foo/gated"] = Repository(FILES, gated=True, readers=("other",))
    hub.repositories["foo/large"] = Repository(FILES, claims={"model.safetensors": 2**60})
    cases: list[tuple[type[TramontaneError], str, dict[str, Any]]] = [
        (GatedModelError, "foo/gated", {}),
        (ModelNotFoundError, "foo/missing", {}),
        (OfflineError, "foo/bar", {"offline": True}),
        (AuthenticationError, "foo/bar", {"token_source": "literal:wrong"}),
        (DiskFullError, "foo/large", {}),
    ]
    seen = []
    for kind, ref, options in cases:
        with pytest.raises(kind) as caught:
            ask(ref, **options)
        assert type(caught.value) is kind
        assert caught.value.hint
        assert "wrong" not in str(caught.value)
        seen.append(caught.value.message)
    assert len(set(seen)) == 5


def test_a_gated_repository_opens_with_the_right_token(hub: FakeHub, ask: Any) -> None:
    hub.repositories["foo/gated"] = Repository(FILES, gated=True, readers=("good",))
    with pytest.raises(GatedModelError, match="accept terms"):
        ask("foo/gated")
    assert (ask("foo/gated", token_source="literal:good") / "model.safetensors").exists()


def test_a_private_repository_looks_missing_without_a_token(hub: FakeHub, ask: Any) -> None:
    hub.repositories["foo/private"] = Repository(FILES, private=True, readers=("good",))
    with pytest.raises(ModelNotFoundError, match="no repository of that name"):
        ask("foo/private")
    assert ask("foo/private", token_source="literal:good").is_dir()


def test_an_unreachable_hub_is_named(ask: Any) -> None:
    with pytest.raises(OfflineError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        ask("foo/bar", endpoint="http://127.0.0.1:9")


def test_a_hostile_commit_leads_nowhere(hub: FakeHub, ask: Any, tmp_path: Path) -> None:
    hub.repositories["foo/bar"].claimed_commit = "../../../../outside"
    with pytest.raises(HubError, match="not a commit"):
        ask("foo/bar")
    assert not (tmp_path / "outside").exists()


def test_a_hub_out_of_order_is_named(hub: FakeHub, ask: Any) -> None:
    hub.status = 500
    with pytest.raises(HubError, match="status 500"):
        ask("foo/bar")


@pytest.mark.parametrize("trouble", ["offline", "unreachable", "broken", "token"])
def test_the_cached_copy_serves_when_the_hub_does_not(hub: FakeHub, ask: Any, trouble: str) -> None:
    folder = ask("foo/bar")
    options: dict[str, Any] = {
        "offline": {"offline": True},
        "unreachable": {"endpoint": "http://127.0.0.1:9"},
        "token": {"token_source": "literal:wrong"},
    }.get(trouble, {})
    hub.status = 503 if trouble == "broken" else None
    assert ask("foo/bar", **options) == folder


def test_offline_by_environment(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="network is switched off"):
        ask("foo/bar")


def test_a_cut_connection_is_tried_again(hub: FakeHub, ask: Any) -> None:
    hub.break_after, hub.breaks = 32768, 1
    folder = ask("foo/bar")
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"].count(
        "model.safetensors"
    ) == 2


def test_a_disk_that_fills_up_while_downloading(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tramontane.hub.download.hf_hub_download", full)
    with pytest.raises(DiskFullError, match="became full"):
        ask("foo/bar")


def test_pickle_is_refused_before_it_is_downloaded(hub: FakeHub, ask: Any) -> None:
    hub.repositories["foo/pickle"] = Repository({k: v for k, v in FILES.items() if "safetensors" not in k})
    with pytest.raises(UnsafeFormatError, match="run code"):
        ask("foo/pickle")
    assert not [path for method, path, _ in hub.requests if "resolve" in path]
    assert (ask("foo/pickle", allow_pickle=True) / "pytorch_model.bin").exists()


def test_one_file_of_another_loader_is_the_model(hub: FakeHub, ask: Any) -> None:
    hub.repositories["foo/gguf"] = Repository({"foo-q4_k_m.gguf": b"GGUF", "README.md": b""})
    assert ask("foo/gguf", endings=(".gguf",)).name == "foo-q4_k_m.gguf"


def choose(names: Sequence[str], quant: str | None) -> Sequence[str]:
    """As a loader would: by a type in the name, or the only one."""
    found = [name for name in names if name.endswith(".gguf") and (quant is None or quant in name)]
    return found if len(found) == 1 else ()


def test_a_model_in_the_asked_type_wins(hub: FakeHub, ask: Any) -> None:
    packed = {"foo-q4_0.gguf": b"GGUF4", "q8_0/foo.gguf": b"GGUF8"}
    hub.repositories["foo/both"] = Repository({**FILES, **packed})
    asked = {"endings": (".gguf",), "choose": choose}
    assert ask("foo/both", quant="q8_0", **asked).read_bytes() == b"GGUF8"
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "resolve" in path}
    assert not fetched & {"model.safetensors", "foo-q4_0.gguf"}
    assert ask("foo/both", quant="q8_0", offline=True, **asked).read_bytes() == b"GGUF8"
    folder = ask("foo/both", quant="awq", **asked)
    assert (folder / "model.safetensors").exists()
    assert resolve(folder, quant="q8_0", **asked).read_bytes() == b"GGUF8"
    assert resolve(folder, **asked) == folder


# --- which files -----------------------------------------------------------------------------------------------------


def test_shards_are_chosen_with_their_index() -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert choose_files([*names, "consolidated.safetensors", "config.json"], "a/b") == sorted([*names, "config.json"])


def test_the_whole_file_wins_over_shards_without_an_index() -> None:
    names = ["model-00001-of-00002.safetensors", "model.safetensors"]
    assert choose_files(names, "a/b") == ["model.safetensors"]


def test_several_files_of_another_loader_must_be_told_apart() -> None:
    with pytest.raises(HubError, match="2 files that could be the model") as caught:
        choose_files(["a-q4_0.gguf", "a-q8_0.gguf"], "a/b", endings=(".gguf",))
    assert "a-q4_0.gguf" in (caught.value.hint or "")
    assert choose_files(["a-q4_0.gguf", "a-q8_0.gguf"], "a/b", patterns=("*q4_0.gguf",)) == ["a-q4_0.gguf"]


def test_tensors_left_over_by_another_format_are_no_model() -> None:
    beside = ["config.json", "residual.safetensors"]

    def choose(names: Sequence[str], quant: str | None) -> Sequence[str]:
        found = [name for name in names if name.endswith(".uqff") and (quant is None or name.startswith(quant))]
        return [*found, "residual.safetensors"] if len(found) == 1 else ()

    asked = {"endings": (".uqff",), "choose": choose}
    assert choose_files([*beside, "q4k-0.uqff"], "a/b", **asked) == sorted([*beside, "q4k-0.uqff"])
    with pytest.raises(HubError, match="2 files that could be the model; say which type, with --quant"):
        choose_files([*beside, "q4k-0.uqff", "q8_0-0.uqff"], "a/b", **asked)
    several = choose_files([*beside, "q4k-0.uqff", "q8_0-0.uqff"], "a/b", quant="q8_0", **asked)
    assert several == sorted([*beside, "q8_0-0.uqff"])
    with pytest.raises(CheckpointError, match="no weights in a known layout"):
        choose_files(beside, "a/b")


def test_no_weights_and_no_match_are_named() -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        choose_files(["README.md", "consolidated.safetensors"], "a/b")
    with pytest.raises(HubError, match=r"no file that matches \*\.gguf"):
        choose_files(["model.safetensors"], "a/b", patterns=("*.gguf",))


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd.json", "a\\b.json", "x\n.json", "c:evil.json", "a//b.json"]
)
def test_hostile_names_are_not_fetched(name: str) -> None:
    assert choose_files([name, "model.safetensors"], "a/b", patterns=("*",)) == ["model.safetensors"]


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_token_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "from-env\n")
    (tmp_path / "token").write_text("from-file\n")
    assert read_token("cache") is None
    assert read_token("none") is False
    assert read_token("literal:abc") == "abc"
    assert read_token("env:MY_TOKEN") == "from-env"
    assert read_token(f"path:{tmp_path / 'token'}") == "from-file"


@pytest.mark.parametrize(
    "source", ["literal:", "env:NOT_SET_ANYWHERE", "path:/not/there", "literal:two words", "literal:a\nb"]
)
def test_empty_or_odd_tokens_are_refused(source: str) -> None:
    with pytest.raises(AuthenticationError):
        read_token(source)


def test_an_unknown_token_source_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        read_token("hf_secret")
    with pytest.raises(ConfigError):
        read_token("file:/x")
    assert "literal:TOKEN" in str(caught.value)


# --- as a program ----------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from tramontane.errors import TramontaneError
from tramontane.hub import resolve
try:
    print(json.dumps(str(resolve(sys.argv[1]))))
except TramontaneError as error:
    print(json.dumps([error.code]))
except KeyboardInterrupt:
    print(json.dumps(["interrupted"]), flush=True)
"""


def _environment(hub: FakeHub, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return kept | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "PYTHONPATH": path} | more


def test_the_clients_environment_is_honoured(hub: FakeHub, tmp_path: Path) -> None:
    def run(**more: str) -> Any:
        command = [sys.executable, "-c", PROGRAM, "foo/bar"]
        done = subprocess.run(
            command, env=_environment(hub, tmp_path, **more), capture_output=True, timeout=60, check=True
        )
        return json.loads(done.stdout)

    assert run(HF_HUB_OFFLINE="1") == ["offline"]
    assert run(HF_TOKEN="bad") == ["hub_authentication"]
    assert Path(run(HF_TOKEN="good")).is_relative_to(tmp_path)
    assert Path(run(HF_HUB_OFFLINE="1")).is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_control_c_stops_a_download_at_once_and_the_next_run_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    size = 50 * 2**20
    hub.repositories["foo/big"] = Repository({"config.json": b"{}", "model.safetensors": bytes(size)})
    hub.delay_s = 0.001  # four seconds or more in all
    command = [sys.executable, "-c", PROGRAM, "foo/big"]
    running = subprocess.Popen(command, env=_environment(hub, tmp_path), stdout=subprocess.PIPE)
    blobs = tmp_path / "hub" / "models--foo--big" / "blobs"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(p.stat().st_size > 2**20 for p in blobs.glob("*")):
        time.sleep(0.05)
    asked = time.monotonic()
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert json.loads(output) == ["interrupted"]
    assert time.monotonic() - asked < 3
    hub.delay_s = 0
    hub.requests.clear()
    folder = resolve("foo/big", endpoint=hub.endpoint, cache_dir=tmp_path / "hub", token_source="none")
    assert (folder / "model.safetensors").stat().st_size == size
    assert not [path for method, path, _ in hub.requests if method == "GET" and path.endswith("config.json")]
