# SPDX-License-Identifier: Apache-2.0
"""Tokenizer and chat template of a checkpoint, or the ones given in their place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from tramontane.checkpoint import Checkpoint, Files
from tramontane.errors import CheckpointError
from tramontane.load.options import LoadOptions
from tramontane.plugins import Plugins
from tramontane.plugins.catalogs import Catalog
from tramontane.records import ChatFormatSpec, resolve

if TYPE_CHECKING:
    from tramontane.chat import ChatTemplate
    from tramontane.chat.parsing import ChatFormat
    from tramontane.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@frozen(kw_only=True, eq=False)
class TextSide:
    """What stands between texts and a model's token ids. No weights are needed for it."""

    tokenizer: Tokenizer | None = None
    chat_template: ChatTemplate | None = None
    chat_format: ChatFormat | None = None
    """How the model writes reasoning and tool calls."""
    generation_config: Mapping[str, Any] = field(factory=dict)
    """Its ``generation_config.json``."""


def text_side(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins) -> TextSide:
    """Tokenizer, template and format of the answers.

    Without a tokenizer a model runs on token ids; without a template it completes text.

    Raises:
        CheckpointError: The given tokenizer does not exist, or a file of either cannot be read.
        UnknownNameError: No installed plugin has the given chat format.
    """
    from tramontane.chat import ChatTemplate, find_template

    files = checkpoint.files if options.tokenizer is None else _given(Path(options.tokenizer))
    source = find_template(files, options.chat_template)
    written = None if source is None else "\n".join(source.templates.values())
    tokenizer = _tokenizer(files, written, checkpoint, options, plugins)
    if tokenizer is None:
        return TextSide(generation_config=checkpoint.generation_config)
    template = ChatTemplate.from_files(files, tokenizer, override=options.chat_template)
    form = find_format(written, plugins.catalogs.chat_formats, options.chat_format)
    if template is not None and form is not None and options.chat_template is None:
        template.writer = form.write_prompt
    return TextSide(
        tokenizer=tokenizer,
        chat_template=template,
        chat_format=form,
        generation_config=checkpoint.generation_config,
    )


def find_format(template: str | None, formats: Catalog[ChatFormatSpec], name: str | None = None) -> ChatFormat | None:
    """The chat format of a name, or the first whose marks are all in a template; ``None`` where no format knows it.

    Raises:
        UnknownNameError: No installed plugin has a format of that name.
    """
    if name is not None:
        spec: ChatFormatSpec | None = formats.get(name)
    else:
        text = template or ""
        spec = next((one for one in formats if one.markers and all(mark in text for mark in one.markers)), None)
    found: ChatFormat | None = spec.load("format") if spec is not None else None
    return found


def _tokenizer(
    files: Files, template: str | None, checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins
) -> Tokenizer | None:
    """By ``tokenizer.json``, else by the plugin that knows one of the files, else none, which is said."""
    from tramontane.tokenizer import Tokenizer

    if "tokenizer.json" not in files:
        for spec in sorted(plugins.catalogs.tokenizers, key=lambda spec: (-spec.priority, spec.name)):
            if any(fnmatch(name, pattern) for name in files.entries for pattern in spec.files):
                found: Tokenizer = resolve(spec.open, spec)(checkpoint.path)
                return found
    try:
        return Tokenizer.from_files(files, template=template)
    except CheckpointError as error:
        if "tokenizer.json" in files or options.tokenizer is not None:
            raise
        _log.warning("prompts must be token ids: %s", error.message)
        return None


def _given(path: Path) -> Files:
    if path.is_dir():
        return Files.in_directory(path)
    if path.is_file():
        return Files.in_directory(path.parent)
    raise CheckpointError(f"the tokenizer {str(path)!r} does not exist", hint="give a folder or a tokenizer.json file")
