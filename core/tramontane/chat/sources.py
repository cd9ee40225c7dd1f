# SPDX-License-Identifier: Apache-2.0
"""Where a model's chat template comes from.

An explicit template wins; then ``chat_template.jinja`` (with ``additional_chat_templates/NAME.jinja``), then
``tokenizer_config.json`` (one text, or a list of named ones), ``chat_template.json`` and ``processor_config.json``. A
loader of another format offers its template under one of these names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tramontane.chat.errors import TemplateError
from tramontane.checkpoint import Files
from tramontane.tokenizer.special import NAMES

_JSON_FILES = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
_LARGEST_FILE = 16_000_000


@frozen
class TemplateSource:
    """Templates by name, and where they were found."""

    templates: Mapping[str, str]
    origin: str
    """A file name, or ``the given template``."""
    names: Mapping[str, str] = field(factory=dict)
    """Special tokens that an explicit JSON file states beside its template."""

    @property
    def main(self) -> str:
        """The template used without tools."""
        return self.templates.get("default") or next(iter(self.templates.values()))

    def pick(self, *, tools: bool, name: str | None = None) -> str:
        """The template to use: the named one, the one for tools, or the default.

        Raises:
            TemplateError: There is none of that name, or several and none is the default.
        """
        if name is not None:
            wanted = [name]
        else:
            wanted = ["tool_use", "default"] if tools else ["default"]
            if len(self.templates) == 1:
                wanted += self.templates
        for candidate in wanted:
            if candidate in self.templates:
                return self.templates[candidate]
        raise TemplateError(
            f"{self.origin} has no chat template named {wanted[-1]!r}, only {', '.join(sorted(self.templates))}",
            hint="name one of them",
        )


def find_template(files: Files, override: str | Path | None = None) -> TemplateSource | None:
    """The chat template of a checkpoint; ``None`` for a base model.

    Args:
        files: The checkpoint's files.
        override: A template's text, or the path of a ``.jinja`` or ``.json`` file; wins over the files.

    Raises:
        TemplateError: The override cannot be read.
    """
    if override is not None:
        return _explicit(override)
    jinja = files.text("chat_template.jinja")
    if jinja is not None:
        return TemplateSource({"default": jinja, **_additional(files)}, "chat_template.jinja")
    for name in _JSON_FILES:
        found = _named((files.json(name) or {}).get("chat_template"))
        if found:
            return TemplateSource({**found, **_additional(files)}, name)
    found = _additional(files)
    return TemplateSource(found, "additional_chat_templates") if found else None


def additional_names(files: Files) -> dict[str, list[str]]:
    """``additional_special_tokens``, which a few templates index, as the tokenizer's files list them."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        stored = (files.json(name) or {}).get("additional_special_tokens")
        if isinstance(stored, list) and stored:
            spelled = [item.get("content") if isinstance(item, dict) else item for item in stored]
            return {"additional_special_tokens": [token for token in spelled if isinstance(token, str)]}
    return {}


def _additional(files: Files) -> dict[str, str]:
    found = {}
    for entry in files.entries:
        folder, _, file = entry.rpartition("/")
        if folder == "additional_chat_templates" and file.endswith(".jinja"):
            found[file.removesuffix(".jinja")] = files.text(entry) or ""
    return found


def _named(stored: Any) -> dict[str, str]:
    """Templates from a JSON value: a text, a mapping of texts, or a list of ``{"name", "template"}``."""
    if isinstance(stored, str):
        return {"default": stored}
    if isinstance(stored, dict):
        return {str(name): text for name, text in stored.items() if isinstance(text, str)}
    items = stored if isinstance(stored, list) else []
    return {
        item["name"]: item["template"]
        for item in items
        if isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str)
    }


def _explicit(override: str | Path) -> TemplateSource:
    if isinstance(override, str) and any(sign in override for sign in ("{{", "{%", "\n")):
        return TemplateSource({"default": override}, "the given template")
    path = Path(override)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise TemplateError(f"chat template {path} is larger than {_LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TemplateError(
            f"cannot read chat template {str(override)[:200]!r}: {reason}",
            hint="give a .jinja file, a .json file with a chat_template, or the template itself",
        ) from error
    if path.suffix != ".json":
        return TemplateSource({"default": text}, path.name)
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{path.name} is not valid JSON: {error}") from error
    found = _named(stored.get("chat_template")) if isinstance(stored, dict) else {}
    if not found:
        raise TemplateError(f"{path.name} has no chat_template")
    return TemplateSource(found, path.name, {n: stored[n] for n in NAMES if isinstance(stored.get(n), str)})
