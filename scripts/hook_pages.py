# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/hooks/``, a page for each hook, from the specifications and the records; ``--check`` only compares."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from tramontane import hooks
from tramontane.plugins.catalogs import KINDS
from tramontane.records import Record

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "hooks"
PREFIX = f"{hooks.PROJECT}_"
_ARTICLES = {
    "registration": "A registration hook: called once per plugin at start-up; it returns or yields records.",
    "decision": "A decision hook: asked while a model is loaded.",
    "observer": "An observer: told what happened; its errors are logged and counted, never raised.",
}
DECISIONS = ("resolve_model", "transform_plan")


def specifications() -> Iterator[tuple[str, object]]:
    """Every hook specification, without the prefix, in the order of the module."""
    for name, value in vars(hooks).items():
        if name.startswith(PREFIX):
            yield name.removeprefix(PREFIX), value


def kind_of(hook: str) -> str:
    """Which of the three kinds a hook is of."""
    if hook in KINDS:
        return "registration"
    return "decision" if hook in DECISIONS else "observer"


def page(hook: str, specification: object) -> str:
    """The page of one hook."""
    text = inspect.getdoc(specification) or ""
    prose, _, example = text.partition(">>> ")
    lines = [f"# `{PREFIX}{hook}`", "", _ARTICLES[kind_of(hook)], "", prose.strip(), ""]
    lines += ["```python", f"def {PREFIX}{hook}{_signature(specification)}", "```", ""]
    record = KINDS.get(hook)
    if record is not None:
        lines += [f"## {record.__name__}", "", f"{inspect.getdoc(record)} Version {record.API} of the record.", ""]
        lines += ["| field | type | meaning |", "|---|---|---|", *_rows(record), ""]
    lines += ["## Example", "", "```python", _imports(record), "", *_plain(example), "```"]
    return _markdown("\n".join(lines))


def _signature(specification: object) -> str:
    signature = str(inspect.signature(specification))  # type: ignore[arg-type]
    return signature.replace("'", "").replace("r.", "") + ": ..."


def _imports(record: type[Record] | None) -> str:
    first = "from tramontane import hookimpl"
    return first if record is None else f"{first}\nfrom tramontane.records import {record.__name__}"


def _plain(example: str) -> list[str]:
    """A doctest without its prompts."""
    return ["" if line == "..." else line.removeprefix("... ") for line in example.strip().splitlines()]


def _rows(record: type[Record]) -> Iterator[str]:
    """A row for each field: those that all records share first, then the record's own."""
    for owner in (Record, record):
        for name, annotation, default, meaning in _fields(owner):
            if name != "plugin":
                form = annotation if default is None else f"{annotation} = {default}"
                yield " | ".join(("", f"`{name}`", f"`{_cell(form)}`", _cell(meaning), "")).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fields(record: type[Record]) -> Iterator[tuple[str, str, str | None, str]]:
    """Name, annotation, default and documentation of the fields that a class itself declares."""
    body = ast.parse(dedent(inspect.getsource(record))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{record} is no class")
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = ast.unparse(statement.annotation)
        if annotation.startswith("ClassVar"):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = " ".join(str(following.value.value).split())
        yield statement.target.id, annotation, _default(statement.value), meaning


def _default(value: ast.expr | None) -> str | None:
    if isinstance(value, ast.Constant):
        return repr(value.value)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        for keyword in value.keywords:
            if keyword.arg == "default":
                return ast.unparse(keyword.value)
        return {"optional_lazy": "None", "lazy_mapping": "{}"}.get(value.func.id)
    return None


def index() -> str:
    """The list of all hooks."""
    lines = ["# Hooks", "", "Written by `scripts/hook_pages.py` from the specifications in `tramontane.hooks`.", ""]
    lines += ["| hook | kind | what it is for |", "|---|---|---|"]
    for hook, specification in specifications():
        first = (inspect.getdoc(specification) or "").splitlines()[0]
        lines.append(f"| [`{PREFIX}{hook}`]({hook}.md) | {kind_of(hook)} | {first} |")
    return _markdown("\n".join(lines))


def _markdown(text: str) -> str:
    """Docstrings' double backticks as Markdown's single ones; fences are left alone."""
    return re.sub(r"(?<!`)``(?!`)", "`", text) + "\n"


def pages() -> dict[Path, str]:
    """Every generated page."""
    found = {FOLDER / f"{hook}.md": page(hook, specification) for hook, specification in specifications()}
    return {FOLDER / "README.md": index(), **found}


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    wanted = pages()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left = sorted(set(FOLDER.glob("*.md")) - set(wanted))
    for path in [*stale, *left]:
        print(f"{'out of date' if check else 'wrote' if path in stale else 'removed'}: docs/hooks/{path.name}")
    if not check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        for path in left:
            path.unlink()
    return 1 if check and (stale or left) else 0


if __name__ == "__main__":
    sys.exit(main())
