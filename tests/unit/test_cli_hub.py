# SPDX-License-Identifier: Apache-2.0
"""The commands about the hub, against one on the loopback interface: pull, cache, login."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.cli.app import run
from tramontane.testing.fake_hub import FakeHub, Repository
from tramontane.testing.pytest_plugin import SealPlugins

FILES = {
    "config.json": b'{"architectures": ["FooForCausalLM"]}',
    "README.md": b"# Foo",
    "model.safetensors": b"x" * 100_000,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seal_plugins: SealPlugins) -> Iterator[FakeHub]:
    seal_plugins()
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "TRAMONTANE_TOKEN_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    repositories = {"foo/bar": Repository(FILES), "foo/huge": Repository(FILES, claims={"model.safetensors": 2**60})}
    with FakeHub(repositories, {"good"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def test_pull_says_the_size_first_and_prints_the_folder(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "foo/bar"]) == 0
    out, err = capsys.readouterr()
    folder = Path(out.strip())
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (folder / "README.md").exists()
    assert "2 files, 97.7 KiB; 97.7 KiB to download, " in err
    assert " free in " in err
    fetched = len(hub.requests)
    assert run(["pull", "foo/bar", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(folder)
    assert facts["bytes_to_download"] == 0
    assert facts["bytes"] == sum(len(FILES[name]) for name in ("config.json", "model.safetensors"))
    assert len(hub.requests) == fetched + 1


def test_a_dry_run_downloads_nothing(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "foo/bar", "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] is None
    assert facts["files"]["model.safetensors"] == 100_000
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


class Typing(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_asks(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Typing("n\n"))
    assert run(["pull", "foo/bar"]) == 130
    assert "Download? [Y/n]" in "".join(capsys.readouterr())
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    monkeypatch.setattr(sys, "stdin", Typing("y\n"))
    assert run(["pull", "foo/bar"]) == 0


def test_a_disk_that_is_too_small_is_named_with_its_numbers(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "foo/huge"]) == 1
    assert "foo/huge needs 1073741824.00 GiB in" in capsys.readouterr().err


def test_the_cache_lists_and_deletes(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "list"]) == 0
    assert "holds no models" in capsys.readouterr().err
    run(["pull", "foo/bar", "-q"])
    capsys.readouterr()
    assert run(["cache", "list", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["model"] == "foo/bar"
    assert list(found["revisions"].values()) == [["main"]]
    assert run(["cache", "list"]) == 0
    assert "foo/bar" in capsys.readouterr().out
    assert run(["cache", "delete", "foo/baz"]) == 1
    assert "did you mean foo/bar?" in capsys.readouterr().err
    assert run(["cache", "delete", "foo/bar", "--revision", "v9"]) == 1
    assert "it has main" in capsys.readouterr().err
    assert run(["cache", "delete", "foo/bar", "-y"]) == 0
    assert "97.7 KiB freed" in capsys.readouterr().err
    run(["cache", "list", "--json"])
    assert json.loads(capsys.readouterr().out) == []


def test_deleting_asks_first(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(["pull", "foo/bar", "-q"])
    monkeypatch.setattr(sys, "stdin", Typing("n\n"))
    assert run(["cache", "delete", "foo/bar"]) == 130
    run(["cache", "list", "--json"])
    assert "foo/bar" in capsys.readouterr().out


def test_login_checks_and_keeps_the_token(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "home" / "token"
    assert run(["login"]) == 1
    assert "no token was given" in capsys.readouterr().err
    assert run(["login", "--token-source", "literal:bad"]) == 1
    assert "does not accept this token (status 401)" in capsys.readouterr().err
    assert not token.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("good\n"))
    assert run(["login"]) == 0
    said = capsys.readouterr().err
    assert "logged in (owner-of-good)" in said
    assert token.read_text() == "good"
    assert token.stat().st_mode & 0o777 == 0o600
    assert run(["login", "--forget"]) == 0
    assert not token.exists()


def test_login_without_a_network(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run(["login", "--token-source", "literal:good"]) == 1
    assert "--no-check" in capsys.readouterr().err
    assert run(["login", "--token-source", "literal:good", "--no-check"]) == 0
    assert (tmp_path / "home" / "token").read_text() == "good"
