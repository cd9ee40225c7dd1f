# SPDX-License-Identifier: Apache-2.0
"""What starting costs: nothing heavy is imported before it is needed. Each is asked of a process of its own.

Times here are processor times, which depend less on what else the machine does; ``tests/perf`` looks at the clock.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "jinja2", "rich")
NOT_AT_IMPORT = (*HEAVY, "attrs", "attr", "stevedore", "pluggy", "click", "packaging", "importlib.metadata")
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/*/tramontane_*/plugin.py"))


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imported(code: str, modules: tuple[str, ...]) -> list[str]:
    """Which of ``modules`` are imported after ``code``."""
    return python(f"import sys\n{code}\nprint(*[m for m in {modules!r} if m in sys.modules])").split()


def best_of(count: int, code: str) -> float:
    """The least number of seconds that ``code`` prints, of several runs."""
    return min(float(python(code)) for _ in range(count))


def processor_time(arguments: tuple[str, ...]) -> str:
    """Code that prints the processor seconds of a Python process with these arguments."""
    return (
        "import os, subprocess, sys\n"
        f"subprocess.run([sys.executable, *{arguments!r}], check=True, stdout=subprocess.DEVNULL)\n"
        "spent = os.times(); print(spent.children_user + spent.children_system)"
    )


def test_import_tramontane_imports_no_other_package() -> None:
    assert imported("import tramontane", NOT_AT_IMPORT) == []


def test_import_tramontane_is_quick() -> None:
    code = "import time; t = time.process_time(); import tramontane; print(time.process_time() - t)"
    assert best_of(5, code) < 0.050


def test_the_public_names_are_there_and_lazy() -> None:
    assert imported("from tramontane import hookimpl", ("attrs", "torch", "stevedore")) == []
    assert imported("from tramontane import SamplingParams, TramontaneError", ("torch", "stevedore", "pluggy")) == []
    names = python("import tramontane; print(*[n for n in tramontane.__all__ if n not in dir(tramontane)])")
    assert names == ""
    assert "no attribute 'nothing'" in python(
        "import tramontane\ntry: tramontane.nothing\nexcept AttributeError as error: print(error)"
    )


def test_help_imports_nothing_heavy() -> None:
    code = "from tramontane.cli.app import run; assert run(['--help']) == 0"
    found = python(f"import sys\n{code}\nprint('imported:', *[m for m in {HEAVY!r} if m in sys.modules])")
    assert found.splitlines()[-1].strip() == "imported:"


def test_help_is_quick() -> None:
    """0.3 s for the whole process, with every installed plugin. Where others crowd the caches of the processor, more by
    as much as importing some of the standard library takes longer than its 0.08 s on a quiet machine."""
    known = (
        "import asyncio, email.message, http.client, logging.config, multiprocessing, unittest.mock, xml.dom.minidom"
    )
    spent, yardstick = [], []
    for _ in range(5):
        spent.append(best_of(1, processor_time(("-m", "tramontane", "--help"))))
        yardstick.append(best_of(1, processor_time(("-c", known))))
    assert min(spent) < 0.300 * max(1.0, min(yardstick) / 0.08)


def test_a_plugin_module_imports_nothing_heavy() -> None:
    """Hooks are asked at every start; what they name is imported when it is chosen."""
    code = (
        f"import importlib, sys\nfor plugin in {PLUGINS!r}:\n"
        f"    importlib.import_module(plugin + '.plugin')\n"
        f"    found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    if found: sys.exit(f'{plugin} imports {found}')"
    )
    python(code)


def test_the_testing_kit_costs_pytest_nothing() -> None:
    assert imported("import tramontane.testing.pytest_plugin", (*HEAVY, "attrs", "stevedore")) == []
