# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows: its pages, their blocks, and every line that is to be typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/*/README.md", "tests/plugins/*/README.md")
    for path in ROOT.glob(pattern)
)
DRAWN = "docs/architecture.md"
"""A page whose one plain block is a drawing."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(?:[\w./]*/)?(tramontane [a-z][^`\n]*)`(?!`)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for match in FENCE.finditer(path.read_text(encoding="utf-8")):
            if match[1] == language:
                yield name_of(path), match[2]


def shell() -> Iterator[tuple[str, str]]:
    """(page, line) of every block that shows what to type; a line that goes on is one."""
    for language in ("", "sh", "bash"):
        for page, text in blocks(language):
            if page != DRAWN:
                whole = re.sub(r"\\\n\s*", "", text)
                yield from ((page, line.strip()) for line in whole.splitlines() if line.strip())


def without_remark(line: str) -> str:
    """A line up to the words beside it, and up to what another program gets of it."""
    return re.split(r"\s{2,}|\s#|\s[|>&]|\$\(", line)[0].strip()


def lines() -> Iterator[tuple[str, str]]:
    """(page, command line) of everything that is shown of the program, in the order of the pages."""
    shown = list(shell())
    for path in PAGES:
        here = [line for page, line in shown if page == name_of(path)]
        for line in [*here, *INLINE.findall(path.read_text(encoding="utf-8"))]:
            found = re.match(r"(?:\S*/)?(tramontane .*)", line)
            if found:
                yield name_of(path), without_remark(found[1])


def furnish(folder: Path) -> None:
    """Put into a folder what the pages speak of: models, adapters, a text, settings of several models."""
    import tramontane_loader_demo

    demo = Path(tramontane_loader_demo.__file__).with_name("model")
    for name in ("MODEL", "PATH-OR-HUB-ID", "folder", "owner/base-model"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(demo)
    shape = json.loads((demo / "config.json").read_text())["hidden_size"]
    at = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    pairs = {at.format("A"): torch.ones(2, shape), at.format("B"): torch.zeros(shape, 2)}
    for name in ("path/to/adapter", "path/to/another", "path/one", "path/two", "owner/adapter-on-the-hub"):
        (folder / name).mkdir(parents=True)
        save_file(pairs, folder / name / "adapter_model.safetensors")
        (folder / name / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    for name in ("FILE", "TEXT"):
        # Text to measure on, and settings of a command: a page may say FILE for both.
        story = "".join("# Once upon a time, there was a little fox.\n" for _ in range(60))
        (folder / name).write_text(f'{story}model = "demo"\ncommand = "tune"\n')
    (folder / "fleet.toml").write_text(next(text for _, text in blocks("toml") if "[[models]]" in text))
