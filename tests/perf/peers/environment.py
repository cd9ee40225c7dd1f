# SPDX-License-Identifier: Apache-2.0
"""Installs the peers into an environment of their own, ``build/peers``: llama.cpp from its pinned source, mistralrs.

llama.cpp's source is the one inside the sdist of ``llama-cpp-python``: one pinned download that PyPI keeps, and the
tools are built from it with the flags below. Nothing of the peers enters the development environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

LLAMA_CPP = "llama-cpp-python==0.3.36"
MISTRALRS = "mistralrs==0.9.5"
LLAMA_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DBUILD_SHARED_LIBS=ON",
)  # fmt: skip
"""Of llama.cpp's build; the rest is its default (OpenMP, llamafile's products, repacking while loading)."""
TOOLS = ("llama-bench", "llama-quantize", "llama-server")

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / "build" / "peers"
PYTHON = HOME / "venv" / "bin" / "python"
PIP = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-q")


def tool(name: str) -> Path:
    """One of llama.cpp's programs."""
    return HOME / "llama" / "bin" / name


def install() -> None:
    """Install what is missing; minutes the first time, nothing afterwards."""
    HOME.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        _say("making build/peers/venv")
        subprocess.run([sys.executable, "-m", "venv", HOME / "venv"], check=True)
    if subprocess.run([PYTHON, "-c", "import mistralrs"], capture_output=True).returncode:
        _say(f"installing {MISTRALRS}")
        subprocess.run([*PIP, "install", MISTRALRS], check=True)
    if not all(tool(name).exists() for name in TOOLS):
        _build(_source())


def versions() -> str:
    """The peers by version and flags: goes above every table."""
    flags = " ".join(flag for flag in LLAMA_FLAGS if "BUILD" not in flag)
    found = subprocess.run([tool("llama-bench"), "--version"], capture_output=True, text=True)
    told = next((line for line in (found.stdout + found.stderr).splitlines() if line.startswith("version")), "")
    return f"llama.cpp of {LLAMA_CPP} ({told or 'no version told'}; {flags}); {MISTRALRS} wheel"


def _source() -> Path:
    """llama.cpp's source, from the sdist."""
    folder = HOME / "src"
    archives = list(folder.glob("*.tar.gz"))
    if not archives:
        _say(f"downloading the source of {LLAMA_CPP}")
        name = LLAMA_CPP.split("==")[0]
        subprocess.run([*PIP, "download", "--no-deps", "--no-binary", name, LLAMA_CPP, "-d", folder], check=True)
        archives = list(folder.glob("*.tar.gz"))
    unpacked = folder / archives[0].name.removesuffix(".tar.gz")
    if not unpacked.exists():
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
    return unpacked / "vendor" / "llama.cpp"


def _build(source: Path) -> None:
    if shutil.which("cmake") is None:
        sys.exit("cmake is needed to build llama.cpp: pip install cmake ninja")
    target = HOME / "llama"
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    _say(f"building llama.cpp in {target.relative_to(ROOT)}: this takes minutes")
    subprocess.run(["cmake", "-S", source, "-B", target, *generator, *LLAMA_FLAGS], check=True)
    build = ["cmake", "--build", target, "-j", str(os.cpu_count() or 1), "--target", *TOOLS]
    subprocess.run(build, check=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
