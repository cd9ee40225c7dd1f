# SPDX-License-Identifier: Apache-2.0
"""Every command line of the documentation, carried out as it stands there: page by page, in a folder that holds what
the page speaks of, against a hub on the loopback interface. ``test_documentation.py`` is the short form."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from documented import furnish, lines, shell, without_remark

from tramontane.cli.app import run
from tramontane.testing.fake_hub import FakeHub, Repository

pytestmark = pytest.mark.full
for needed in ("tramontane_loader_demo", "tramontane_quant_gguf", "tramontane_quant_uqff", "tramontane_frontend_http"):
    pytest.importorskip(needed, reason="the pages speak of it")

PAGES = sorted({page for page, _ in lines()})
SERVE = re.compile(r"tramontane (serve|from-config fleet)")
NAMES = {"tramontane pull", "tramontane perplexity"}
"""A command's name and no line to type: it needs a word more."""
CARDS = re.compile(r"cuda|--tensor-parallel|--expert-parallel")
SAID = {"tramontane cache delete MODEL": "has no model 'MODEL'"}
"""Lines whose model is none of the cache, and what is said of that."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A furnished folder to work in, and a hub that has the models that the pages name."""
    for name in [name for name in os.environ if name.startswith(("TRAMONTANE_", "HF_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(home))  # for programs of their own
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "MODEL").iterdir() if path.is_file()}
    repositories = {name: Repository(files) for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B")}
    with FakeHub(repositories, {"good"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_lines_of_a_page(page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("model.gguf", "FILE.uqff"):
        assert run(["quantize", "-m", "demo", "--quant", "q4k", "-o", file, "-q"]) == 0
    Path("FILE-0.uqff").rename("FILE.uqff")
    for line in dict.fromkeys(line for where, line in lines() if where == page and not SERVE.match(line)):
        capsys.readouterr()
        words = shlex.split(re.sub(r" \[[^]]*\]", "", line))[1:]
        monkeypatch.setattr(sys, "stdin", io.StringIO("good\n"))  # a token, or a message
        code = run([*words, "--help"] if line in NAMES else words)
        told = "".join(capsys.readouterr())
        if CARDS.search(line) and torch.cuda.device_count() < 2:
            assert (code, "there is no device 'cuda" in told) in ((1, True), (0, False)), f"{line}\n{told}"
        elif line in SAID:
            assert (code, SAID[line] in told) == (1, True), f"{line}\n{told}"
        else:
            assert code == 0, f"{line}\n{told}"


# --- servers ----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(words: list[str]) -> Iterator[str]:
    """The address of a server that a command line starts, on a port that is free; it is ended as people do."""
    command = [sys.executable, "-m", "tramontane", *words, "--port", "0"]
    with Path("served.log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=log) as process:
        try:
            deadline = time.monotonic() + 300
            while not (found := re.search(r"Serving .* at (\S+) ", Path("served.log").read_text())):
                assert process.poll() is None, Path("served.log").read_text()
                assert time.monotonic() < deadline, Path("served.log").read_text()
                time.sleep(0.1)
            yield found[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0, Path("served.log").read_text()
        finally:
            process.kill()


@pytest.mark.parametrize("line", sorted({line for _, line in lines() if SERVE.match(line)}))
def test_a_server_starts_and_ends(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for absolute in ("/etc/tramontane/keys", "/srv/adapters"):
        line = line.replace(absolute, absolute.strip("/"))
    (folder / "srv/adapters").mkdir(parents=True)
    (folder / "etc/tramontane").mkdir(parents=True)
    (folder / "etc/tramontane/keys").write_text("secret\n")
    if "--tls" in line:
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificate")
        made = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost"
        subprocess.run(made.split(), check=True, capture_output=True)
        line = line.replace("0.0.0.0", "127.0.0.1")
    with serving(shlex.split(line)[1:]) as url:
        unchecked = ssl._create_unverified_context()
        with urllib.request.urlopen(f"{url}/health", context=unchecked if url.startswith("https") else None) as answer:
            assert answer.status == 200


CURL = sorted({without_remark(line) for _, line in shell() if line.startswith("curl ")})


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_curl_sends_is_answered(folder: Path) -> None:
    assert CURL
    with serving(["from-config", "fleet.toml"]) as url:
        for line in CURL:
            command = line.replace("http://127.0.0.1:8000", url)
            done = subprocess.run([*shlex.split(command), "--fail-with-body", "-s"], capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stdout}"
            assert json.loads(done.stdout)
