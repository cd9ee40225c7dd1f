# SPDX-License-Identifier: Apache-2.0
"""Measurements as a JSON file: what was measured, on what, then type by type. A type measured again is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import Factory, define

Row = dict[str, Any]
BASE = "original"
"""The row of the model that nothing is quantized of."""


@define
class Records:
    """A file of measurements, by their title and the type."""

    path: Path
    found: dict[str, dict[str, Row]] = Factory(dict)

    @classmethod
    def read(cls, path: Path) -> Records:
        """What the file has; nothing if there is none."""
        return cls(path, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def add(self, title: str, kind: str, row: Row) -> None:
        """Keep a row, in the file too."""
        self.found.setdefault(title, {})[kind] = row
        lines = [
            json.dumps(title)
            + ": {\n"
            + ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in rows.items())
            + "\n}"
            for title, rows in self.found.items()
        ]
        self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
