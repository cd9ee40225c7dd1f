# SPDX-License-Identifier: Apache-2.0
"""Fetch the JSON-Schema-Test-Suite, from the source distribution of ``jsonschema``, to where the tests look for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / ".cache" / "json-schema-test-suite"


def main() -> None:
    """Download with pip, unpack the tests."""
    with tempfile.TemporaryDirectory() as folder:
        what = ["--no-deps", "--no-binary", ":all:", "jsonschema==4.26.0", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", *what], check=True)
        (archive,) = Path(folder).glob("jsonschema-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (tests,) = Path(folder).glob("jsonschema-*/json/tests")
        TARGET.parent.mkdir(exist_ok=True)
        shutil.move(tests, TARGET)
    print(f"the suite is in {TARGET}")


if __name__ == "__main__":
    main()
