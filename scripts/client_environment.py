# SPDX-License-Identifier: Apache-2.0
"""Make ``.venv-clients``: other people's clients, and the sources of the vendors' SDKs, for the tests of the server.

    python scripts/client_environment.py [FOLDER]

They are kept out of the development environment: they are large and pin each other's versions. Tests that need them
skip with a reason where they are missing; ``TRAMONTANE_CLIENTS`` names another folder.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALONE = {"llama-index": ["llama-index-llms-openai-like==0.8.1"]}
"""Clients that want other versions than the rest."""
SDKS = ("openai", "anthropic")


def main(folder: Path) -> None:
    """Make both environments and unpack the sources."""
    pinned = ROOT / "requirements-clients.txt"
    main_python = environment(folder / "main", ["-r", str(pinned)])
    for name, packages in ALONE.items():
        environment(folder / name, packages)
    sources = folder / "sdists"
    sources.mkdir(exist_ok=True)
    for line in pinned.read_text(encoding="utf-8").splitlines():
        if line.partition("==")[0] in SDKS:
            fetch = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(sources), line]
            subprocess.run([main_python, "-m", "pip", *fetch], check=True)
    for archive in sources.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(sources, filter="data")


def environment(folder: Path, packages: list[str]) -> str:
    """A virtual environment with some packages; its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / ".venv-clients")
