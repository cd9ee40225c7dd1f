# SPDX-License-Identifier: Apache-2.0
"""Models split over several files: ``NAME-00001-of-00003.gguf`` and so on.

The first file has all metadata; every file says which it is (``split.no``), of how many (``split.count``), and how many
tensors all of them have together (``split.tensors.count``).
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading.header import Header
from tramontane_quant_gguf.reading.mapping import mapped
from tramontane_quant_gguf.reading.parse import parse_header

NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_FILES = 4096


@frozen(eq=False)
class Opened:
    """One file of a model and what it holds."""

    path: Path
    header: Header


def open_all(path: Path) -> list[Opened]:
    """The file, or all files that it is one of, in order.

    Raises:
        CheckpointError: A file is damaged or missing, or the files do not belong together.
    """
    asked = Opened(path, parse_header(mapped(path), str(path)))
    count = asked.header.metadata.whole("split.count") or 1
    if count == 1:
        return [asked]
    found = [asked if other == path else _open(other) for other in _files(path, count)]
    for number, one in enumerate(found):
        _check_belongs(one, number, count)
    stored = sum(len(one.header.entries) for one in found)
    stated = found[0].header.metadata.whole("split.tensors.count")
    if stated is not None and stated != stored:
        raise CheckpointError(f"{path}: the {count} files hold {stored} tensors, but should hold {stated}")
    return found


def _files(path: Path, count: int) -> list[Path]:
    if count > MAX_FILES:
        raise CheckpointError(f"{path} says it is one of {count} files; {MAX_FILES} are the limit")
    match = NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise CheckpointError(
            f"{path} is one of {count} files, but is not called NAME-00001-of-{count:05}.gguf",
            hint="give the files their original names, so that the others can be found",
        )
    found = [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [file.name for file in found if not file.is_file()]
    if missing:
        few = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise CheckpointError(f"{path.parent} lacks {len(missing)} of {count} files: {few}", hint="fetch them too")
    return found


def _open(path: Path) -> Opened:
    return Opened(path, parse_header(mapped(path), str(path)))


def _check_belongs(one: Opened, number: int, count: int) -> None:
    metadata = one.header.metadata
    stated = (metadata.whole("split.no"), metadata.whole("split.count"))
    if stated != (number, count):
        raise CheckpointError(
            f"{one.path} says it is file {stated[0]} of {stated[1]} (counted from 0), not {number} of {count}",
            hint="the files may come from different models; fetch them again",
        )
