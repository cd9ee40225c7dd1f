# SPDX-License-Identifier: Apache-2.0
"""A server as a process of its own, as users start it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def served(*flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server of the demo model on a port of loopback: its base URL, and the process.

    Args:
        flags: Further options of ``tramontane serve``.

    Raises:
        RuntimeError: It ended before it served anything; what it said.
    """
    command = [sys.executable, "-m", "tramontane", "serve", "-m", "demo", "--port", "0", "--state-dir", "none",
               "--no-access-log", *flags]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        try:
            while process.stderr is not None and (line := process.stderr.readline()):
                said += line
                if url := re.search(r"at (http://\S+)", line):
                    yield url[1], psutil.Process(process.pid)
                    break
        finally:
            process.terminate()
        if " at http" not in said:
            raise RuntimeError(said)
