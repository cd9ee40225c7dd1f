# SPDX-License-Identifier: Apache-2.0
"""``python -m tramontane.bench.quantization quality|loading|packing|speed -m MODEL --title NAME --records FILE``.

For real widths measure loading and speed on a random checkpoint: ``python -m tramontane.testing.shapes``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tramontane.bench.quantization import loading, packing, quality, speed
from tramontane.bench.quantization.records import Records, Row
from tramontane.plugins import installed


def every_type() -> list[str]:
    """All types that are installed, by their first names."""
    return sorted({spec.name for spec in installed().catalogs.quantizers})


def parsed() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tramontane.bench.quantization", description=__doc__)
    parser.add_argument("what", choices=("quality", "loading", "packing", "save", "speed"))
    parser.add_argument("-m", "--model", default="", help="which model; packing needs none")
    parser.add_argument("--types", default="", help="separated by commas; all that are installed if not given")
    parser.add_argument("--records", type=Path, default=Path("quantization.json"), help="file that rows are added to")
    parser.add_argument("--title", help="what the rows are filed under; the model's name if not given")
    parser.add_argument("--text", type=Path, help="quality: the text")
    parser.add_argument("--chunk", type=int, default=512, help="quality: tokens of a chunk")
    parser.add_argument("--chunks", type=int, help="quality: stop after so many chunks")
    parser.add_argument("--calibrate", help="quality: a text to collect importances from")
    parser.add_argument(
        "--saved", type=Path, default=Path("build/quantized"), help="save, speed: where types are saved"
    )
    parser.add_argument("--tokens", type=int, default=16, help="speed: tokens of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="speed: pairs of measurements")
    parser.add_argument("--work", action="store_true", help="speed: processor time of one thread, beside other work")
    given = parser.parse_args()
    if given.what == "quality" and given.text is None:
        parser.error("quality needs --text FILE")
    if given.what != "packing" and not given.model:
        parser.error(f"{given.what} needs -m MODEL")
    return given


def rows(given: argparse.Namespace, kinds: list[str]) -> Iterator[tuple[str, Row]]:
    """What is asked for, type by type."""
    if given.what == "quality":
        text = given.text.read_text(encoding="utf-8")
        limits = {"chunk": given.chunk, "limit": given.chunks, "calibrate": given.calibrate}
        yield from quality.measure(given.model, text, kinds, **limits)
    elif given.what == "packing":
        yield from packing.measure(kinds)
    elif given.what == "loading":
        yield from ((kind, loading.measure(given.model, kind)) for kind in kinds)
    else:
        counts = {"tokens": given.tokens, "repeats": given.repeats, "work": given.work}
        yield from speed.measure(given.model, kinds, given.saved, **counts)


def main() -> None:
    """Parse, measure, keep and print."""
    given = parsed()
    kinds = [kind for kind in given.types.split(",") if kind] or every_type()
    if given.what == "save":
        for kind in kinds:
            print(speed.saved(given.model, kind, given.saved), flush=True)
        return
    records = Records.read(given.records)
    title = f"{given.what} of {given.title or Path(given.model).name}"
    for kind, row in rows(given, kinds):
        records.add(title, kind, row)
        print(kind, row, flush=True)


if __name__ == "__main__":
    main()
