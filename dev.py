# SPDX-License-Identifier: Apache-2.0
"""The repository's tasks, with nothing but Python: ``python3 dev.py run`` (or ``make run``).

The first task makes a virtual environment in ``.venv`` and installs what it needs; a stamp file that holds a digest of
the requirement files keeps the next one from doing it again. ``run`` installs what a user would, the others also the
development tools. This file parses on any Python 3.6, to be able to say that it needs a newer one.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
USER, DEVELOPER = "requirements.txt", "requirements-dev.txt"
PAGES = ("sync_plugins", "hook_pages", "model_pages", "error_pages", "quantization_page")


def run(arguments):
    """Set up, then let the demo model tell a story."""
    if set_up(USER):
        return 1
    code = call(BIN / "tramontane", *(arguments or ["run", "-m", "demo", "-p", "Once upon a time"]))
    if code == 0 and not arguments:
        command = (BIN / "tramontane").relative_to(ROOT)
        print("\nNext:")
        print(f"  {command} run                     chat with the demo model in the terminal")
        print(f"  {command} run -m PATH-OR-HUB-ID   chat with a model of your choice")
        print(f"  {command} doctor                  look at this machine and this installation")
    return code


def test(arguments):
    """Every test but the long ones: at most 8 minutes on two cores, after the installation."""
    return set_up(DEVELOPER) or pytest(*arguments)


def test_all(arguments):
    """Every test that needs no accelerator."""
    return set_up(DEVELOPER) or pytest("-m", "not gpu and not perf", *arguments)


def bench(arguments):
    """Measure start-up, the scheduler and the demo model; nothing else should run meanwhile."""
    if set_up(DEVELOPER):
        return 1
    measured = call(PYTHON, "-m", "pytest", "-m", "perf", "-s", "-p", "no:xdist", "tests/perf", *arguments)
    return measured or call(BIN / "tramontane", "bench", "-m", "demo")


def bench_peers(arguments):
    """Measure against llama.cpp and mistralrs, installed into build/peers; nothing else should run meanwhile."""
    return set_up(DEVELOPER) or call(PYTHON, "tests/perf/peers", *arguments)


def lint(_arguments):
    """ruff over everything, mypy over the core, generated files against their sources."""
    if set_up(DEVELOPER):
        return 1
    return max(
        call(BIN / "ruff", "check", "."),
        call(BIN / "ruff", "format", "--check", "."),
        call(BIN / "mypy"),
        *(call(PYTHON, f"scripts/{name}.py", "--check") for name in PAGES),
    )


def docs(_arguments):
    """Write everything that is generated: pages, extras, requirement files, known_plugins.json."""
    if set_up(DEVELOPER):
        return 1
    return max(call(PYTHON, f"scripts/{name}.py") for name in PAGES)


def dist(arguments):
    """Build an sdist and a wheel of the core and of every plugin into dist/ (or the folder that is named)."""
    if set_up(DEVELOPER):
        return 1
    where = arguments[0] if arguments else "dist"
    # Each wheel is built from its sdist, so what an sdist lacks is noticed. -P: build/ here is no package.
    build = (PYTHON, "-P", "-m", "build", "--no-isolation", "--outdir", where)
    for folder in [".", *plugin_folders()]:
        print(f"Building {folder}", flush=True)
        if call(*build, folder, quiet=True):
            return call(*build, folder)
    return 0


def clean(_arguments):
    """Remove .venv, caches and built packages."""
    for name in (".venv", "build", "dist", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"):
        shutil.rmtree(str(ROOT / name), ignore_errors=True)
    return 0


TASKS = {"run": run, "test": test, "test-all": test_all, "bench": bench, "bench-peers": bench_peers, "lint": lint}
TASKS.update({"docs": docs, "dist": dist, "clean": clean})


# --- the environment --------------------------------------------------------------------------------------------------


def set_up(requirements):
    """Install a requirement file into .venv, unless a stamp says that this is done. Returns 0 if all is well.

    What a developer installs contains what a user installs.
    """
    if PYTHON.exists() and any(text(stamp(name)) == digest(name) for name in (requirements, DEVELOPER)):
        return 0
    if make_venv():
        return 1
    print(f"Installing {requirements} (once; this takes some minutes) ...", flush=True)
    pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-c", "constraints.txt")
    code = call(*pip, "-r", "requirements-build.txt") or call(*pip, "--no-build-isolation", "-r", requirements)
    if code:
        print("The installation failed; the lines above say why.", file=sys.stderr)
        return 1
    stamp(requirements).write_text(digest(requirements), encoding="utf-8")
    return 0


def make_venv():
    """Make .venv if there is no working one. Returns 0 if all is well."""
    if PYTHON.exists() and call(PYTHON, "-m", "pip", "--version", quiet=True) == 0:
        return 0
    try:
        # Debian splits this off; without it, venv fails and leaves half an environment.
        import ensurepip  # noqa: F401
    except ImportError:
        sudo = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
        version = ".".join(map(str, sys.version_info[:2]))
        print("This Python cannot make virtual environments. On Debian and Ubuntu, type:", file=sys.stderr)
        # A fresh container has no lists of packages yet.
        print(f"  {sudo}apt-get update && {sudo}apt-get install python{version}-venv", file=sys.stderr)
        return 1
    print("Making a virtual environment in .venv ...", flush=True)
    return call(sys.executable, "-m", "venv", "--clear", VENV)


def digest(requirements):
    """A digest of everything that decides what an installation holds."""
    files = [ROOT / name for name in ("constraints.txt", "requirements-build.txt", requirements, "pyproject.toml")]
    files += [ROOT / folder / "pyproject.toml" for folder in plugin_folders()]
    joined = "\0".join([str(ROOT), sys.version] + [text(file) or "" for file in files])
    return hashlib.sha256(joined.encode("utf-8")).hexdigest()


def stamp(requirements):
    """Where the digest of a finished installation is kept."""
    return VENV / ("installed-" + requirements)


def text(path):
    """A file's text, or None where there is no such file."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


def plugin_folders():
    """Every plugin's folder, relative to the repository."""
    return sorted(file.parent.relative_to(ROOT).as_posix() for file in ROOT.glob("plugins/*/*/pyproject.toml"))


# --- processes --------------------------------------------------------------------------------------------------------


def pytest(*arguments):
    """Run the tests on all cores: a process for each, one thread in each."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    command = (PYTHON, "-m", "pytest", "-n", "auto", "--dist", "loadfile", *arguments)
    return call(*command, environment=environment)


def call(*command, environment=None, quiet=False):
    """Run a command in the repository and return its exit code."""
    output = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.call(
            [str(part) for part in command], cwd=str(ROOT), env=environment, stdout=output, stderr=output
        )
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return 1


def with_newer_python(arguments):
    """Start again with the newest Python on the path, or say what is missing."""
    for name in NEWER:
        found = shutil.which(name)
        # A shim of a version manager may lie on the path without a Python behind it.
        if found and call(found, "-c", "", quiet=True) == 0:
            return call(found, Path(__file__).resolve(), *arguments)
    wanted = ".".join(map(str, OLDEST))
    print(f"Tramontane needs Python {wanted} or newer; this is {sys.version.split()[0]}.", file=sys.stderr)
    print(f"Name one with: make {' '.join(arguments)} PYTHON=/path/to/python{wanted}", file=sys.stderr)
    return 1


def main(arguments):
    """Run one task and return its exit code."""
    task = TASKS.get(arguments[0]) if arguments else None
    if task is None:
        print("usage: make TASK, or python3 dev.py TASK\n")
        for name, function in TASKS.items():
            print(f"  {name:<9} {function.__doc__.splitlines()[0]}")
        return 0 if not arguments or arguments[0] == "help" else 2
    return with_newer_python(arguments) if sys.version_info[:2] < OLDEST else task(arguments[1:])


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C and its children inherit that, but tests send it to programs.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
