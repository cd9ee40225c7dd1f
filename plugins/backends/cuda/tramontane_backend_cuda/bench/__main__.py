# SPDX-License-Identifier: Apache-2.0
"""``python -m tramontane_backend_cuda.bench``: test and measure everything and print one table.

Tests and measurements run in processes of their own (:mod:`.isolation`): one that crashes, hangs or spoils the card's
context is a line of the table, and the others go on. Every result is printed as it comes, too.

``--smoke`` runs the same code over tiny shapes on the host, by Triton's interpreter: it shows that the script works and
says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tramontane_backend_cuda.bench.isolation import Found, Notes, Supervisor

MEASURED = ("kernel", "sweep", "step", "prefill", "streams", "load")
SECTIONS = ("tests", *MEASURED)
UNASKED = tuple(one for one in SECTIONS if one != "sweep")
"""Sections of a run that names none."""
TESTS = Path(__file__).parents[2] / "tests"
"""Of a checkout; an installed package has none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status is 1 if some numbers are wrong, 2 if a goal was missed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    sections = options.only.split(",")
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    notes = Notes.here() if options.worker else None
    if notes is not None:
        return _work(options, sections, notes)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return _report(_measure(options, sections, given), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tramontane_backend_cuda.bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the host, by Triton's interpreter")
    parser.add_argument("--only", default=",".join(UNASKED), help=f"sections: {','.join(SECTIONS)}")
    parser.add_argument("--match", default="", help="regular expression that the names of kernels and models match")
    parser.add_argument("--backend", default="cuda", help="backend to measure: cuda, or torch to compare with")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--limit", type=float, help="seconds that one job may take: 180, by the interpreter 600")
    parser.add_argument("--budget", type=float, default=3600, help="seconds that all of it may take")
    parser.add_argument("--json", type=Path, help="write the lines there too, after each of them")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def _work(options: Any, sections: Sequence[str], notes: Notes) -> int:
    """Be a worker."""
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    from tramontane_backend_cuda.bench.jobs import all_jobs, work

    device = "cpu" if options.smoke else options.device
    return work(all_jobs(options, sections, lambda text: notes.write("line", {"say": text})), notes, device)


def _measure(options: Any, sections: Sequence[str], given: Sequence[str]) -> Iterator[tuple[str, Found]]:
    """Results with their section: first the tests, then what is measured."""
    begun = time.monotonic()
    until, limit = begun + options.budget, options.limit or (600 if options.smoke else 180)
    if "tests" in sections and TESTS.is_dir():
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(TESTS)]
        if options.smoke:
            command += ["-k", "test_gates"]
        environment = {"TRITON_INTERPRET": "1" if options.smoke else "0", "OMP_NUM_THREADS": "1"}
        for found in Supervisor(command, environment, limit, until).results():
            yield "tests", found
    measured = [section for section in sections if section in MEASURED]
    if measured:
        command = [sys.executable, "-m", "tramontane_backend_cuda.bench", *given]
        command += ["--worker", "--only", ",".join(measured)]
        for found in Supervisor(command, {}, limit, until).results():
            yield measured[0], found
    yield "all", Found("the whole run", line={
        "section": "all", "what": "the whole run", "value": time.monotonic() - begun, "unit": "s"})  # fmt: skip


def _report(results: Iterator[tuple[str, Found]], options: Any) -> int:
    """Print every result as it comes, then the table."""
    import attrs

    from tramontane_backend_cuda.bench.limits import Line, table

    lines: list[Line] = []
    tests = {"passed": 0, "failed": 0, "skipped": 0}
    for section, found in results:
        given = dict(found.line or {})
        if "say" in given:
            print(given["say"], flush=True)
            continue
        if "outcome" in given:
            tests[given["outcome"]] += 1
            if given["outcome"] != "failed":
                continue
            line = Line(section="tests", what=found.job, value=0, unit="", check=given["reason"])
        elif found.error:
            line = Line(section=section, what=found.job, value=0, unit="", check=found.error)
        else:
            line = Line(**given)
        lines.append(line)
        print(table([line], header=False), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([attrs.asdict(one) for one in lines], indent=1), encoding="utf-8")
    if any(tests.values()):
        lines.insert(0, Line(section="tests", what=", ".join(f"{count} {name}" for name, count in tests.items()),
                             value=tests["passed"], unit="tests"))  # fmt: skip
    print(f"\n{table(lines)}")
    if any(line.wrong for line in lines):
        return 1
    return 2 if not options.smoke and any(line.reached is False for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
