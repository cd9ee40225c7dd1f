# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/errors.md``, a part for each error that a user can meet, from the classes; ``--check`` only compares.

The first paragraph of a class's docstring says what happened, the second what to do. Errors live in modules called
``errors``.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tramontane.errors import TramontaneError

ROOT = Path(__file__).resolve().parent.parent
CORE, PAGE = ROOT / "core", ROOT / "docs" / "errors.md"
HEAD = """\
# Errors

Written by `scripts/error_pages.py` from the classes. Every error descends from `TramontaneError`: its `message` says
what happened and with which names, its `hint` what to do next. Programs tell errors apart by class, or over the wire by
`code`; texts may change. The command line prints both and ends with 1 (2 for wrong usage, 130 for Ctrl-C); `-vv` adds
the traceback.
"""


def errors() -> list[type[TramontaneError]]:
    """Every public class below the root, each after its base."""
    for path in sorted(CORE.rglob("errors.py")):
        importlib.import_module(".".join(path.relative_to(CORE).with_suffix("").parts))

    def below(kind: type[TramontaneError]) -> Iterator[type[TramontaneError]]:
        for one in kind.__subclasses__():
            if not one.__name__.startswith("_"):
                yield one
            yield from below(one)

    return list(below(TramontaneError))


def part(kind: type[TramontaneError]) -> str:
    """What the page says about one class.

    Raises:
        ValueError: The docstring does not say what to do.
    """
    what, _, to_do = (inspect.getdoc(kind) or "").partition("\n\n")
    if not what or not to_do or "\n\n" in to_do:
        raise ValueError(f"{kind.__name__}: its docstring must be two paragraphs, what happened and what to do")
    base = kind.__mro__[1].__name__
    link = f"`{base}`" if base == "TramontaneError" else f"[`{base}`](#{base.lower()})"
    lines = [f"## {kind.__name__}", "", f"`{kind.code}`, a {link}, in `{kind.__module__}`.", "", _joined(what), ""]
    return "\n".join([*lines, f"**What to do:** {_joined(to_do)}", ""])


def _joined(text: str) -> str:
    return re.sub(r"(?<!`)``(?!`)", "`", " ".join(text.split()))


def main() -> int:
    """Write, or check."""
    wanted = "\n".join([HEAD, *(part(kind) for kind in errors())])
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/errors.md is out of date; `make docs` writes it", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    print("wrote docs/errors.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
