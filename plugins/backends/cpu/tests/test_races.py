# SPDX-License-Identifier: Apache-2.0
"""The native library under ThreadSanitizer: built with it, then the tests of several threads run once more.

A library with a race of its own is run the same way first, so that silence means something.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = "number_of_threads or regions or sleepers or callers or eager_bit or many_tokens or long_prompt"
RACY = """
#include <thread>
static long count = 0;
extern "C" long race() {
    auto add = [] { for (int i = 0; i < 100000; ++i) ++count; };
    std::thread one(add), two(add);
    one.join();
    two.join();
    return count;
}
"""


@pytest.fixture(scope="module")
def sanitizer() -> Path:
    """The library of ThreadSanitizer that goes with the compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("no compiler with a ThreadSanitizer")
    found = subprocess.run([compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    path = Path(found.stdout.strip())
    if not path.is_absolute():
        pytest.skip("the compiler came without ThreadSanitizer")
    return path.resolve()


def reports(sanitizer: Path, folder: Path, command: list[str], **variables: str) -> tuple[str, str]:
    """Run a command; what it printed, and what ThreadSanitizer wrote."""
    options = f"ignore_noninstrumented_modules=1 exitcode=0 log_path={folder / 'report'}"
    env = {**os.environ, "LD_PRELOAD": str(sanitizer), "TSAN_OPTIONS": options, "OMP_NUM_THREADS": "1", **variables}
    # Addresses that wander more than the sanitizer allows for stop it before it starts.
    steady = [tool, "-R"] if (tool := shutil.which("setarch")) else []
    done = subprocess.run([*steady, *command], env=env, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, "\n".join(path.read_text() for path in sorted(folder.glob("report*")))


@pytest.mark.full
def test_a_race_would_be_seen(sanitizer: Path, tmp_path: Path) -> None:
    (tmp_path / "racy.cpp").write_text(RACY)
    compiler = os.environ.get("CXX", "c++")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-fsanitize=thread", "-o", tmp_path / "racy.so", tmp_path / "racy.cpp"],
        check=True,
    )
    call = f"import ctypes; ctypes.CDLL({str(tmp_path / 'racy.so')!r}).race()"
    _, found = reports(sanitizer, tmp_path, [sys.executable, "-c", call])
    assert "data race" in found


@pytest.mark.full
def test_no_kernel_races(sanitizer: Path, tmp_path: Path) -> None:
    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if cmake is None:
        pytest.skip("no cmake")
    build = tmp_path / "build"
    # How work is shared does not depend on the instruction set; the lowest builds fastest.
    chosen = ["-DTRAMONTANE_SANITIZE=thread", "-DTRAMONTANE_LEVELS=portable"]
    subprocess.run([cmake, "-S", ROOT, "-B", build, *chosen], check=True, capture_output=True)
    subprocess.run([cmake, "--build", build, "--parallel", "2"], check=True, capture_output=True)
    # Whole models add nothing to kernels and small programs but minutes.
    tests = [str(path) for path in sorted((ROOT / "tests").glob("test_native_*.py")) if "models" not in path.name]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", CHOSEN, *tests]
    library = build / "libtramontane_cpu.so"
    said, found = reports(sanitizer, tmp_path, command, TRAMONTANE_CPU_LIBRARY=str(library), TRAMONTANE_CPU_THREADS="3")
    assert " passed" in said, said[-2000:]
    assert "data race" not in found, found[:6000]
