# SPDX-License-Identifier: Apache-2.0
"""The measuring script runs from end to end on the host; its table says what is wrong and what was missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tramontane_backend_cuda.bench.limits import CARDS, Line, table


@pytest.mark.full
@pytest.mark.parametrize("sections", ["tests,kernel", "step,prefill,streams,load"])
def test_the_same_code_runs_tiny_shapes_on_the_host(sections: str, tmp_path: Path) -> None:
    out = tmp_path / "lines.json"
    command = [sys.executable, "-m", "tramontane_backend_cuda.bench", "--smoke", "--only", sections, "--json", str(out)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines: list[dict[str, Any]] = json.loads(out.read_text())
    assert {line["section"] for line in lines} == {*sections.split(","), "all"}
    assert all(line["value"] > 0 for line in lines), ran.stdout
    assert "of limit" in ran.stdout
    if "kernel" in sections:
        checked = [line for line in lines if line["section"] == "kernel"]
        assert len(checked) > 20
        assert {line["check"] for line in checked} == {"ok"}


def test_a_section_that_is_none_is_said() -> None:
    from tramontane_backend_cuda.bench.__main__ import main

    with pytest.raises(SystemExit):
        main(["--only", "everything"])


def test_the_table_says_how_near_and_what_was_missed() -> None:
    lines = [
        Line(section="kernel", what="a", value=20, unit="us", limit=10, lower_is_better=True, check="ok"),
        Line(section="step", what="b", value=300, unit="tokens/s", limit=400, goal=235),
        Line(section="step", what="c", value=200, unit="tokens/s", limit=400, goal=235),
        Line(section="kernel", what="d", value=1, unit="us", check="off by 0.5"),
    ]
    assert [line.share for line in lines] == [0.5, 0.75, 0.5, None]
    assert [line.reached for line in lines] == [None, True, False, None]
    assert [line.wrong for line in lines] == [False, False, False, True]
    rows = table(lines).splitlines()
    assert len(rows) == 5
    assert "50%" in rows[1]
    assert "reached" in rows[2]
    assert "MISSED" in rows[3]
    assert "off by 0.5" in rows[4]


def test_the_cards_of_the_goals_are_known() -> None:
    assert [card.bytes_per_s for card in CARDS if card.name == "H200"] == [4.4e12]
