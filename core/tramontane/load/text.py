# SPDX-License-Identifier: Apache-2.0
"""Tokenizer and chat template of a checkpoint, or the ones given in their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tramontane.checkpoint import Checkpoint, Files
from tramontane.errors import CheckpointError
from tramontane.load.options import LoadOptions

if TYPE_CHECKING:
    from tramontane.chat import ChatTemplate
    from tramontane.tokenizer import Tokenizer


def text_side(checkpoint: Checkpoint, options: LoadOptions) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """Tokenizer and template. Without a tokenizer a model runs on token ids; without a template it completes text.

    Raises:
        CheckpointError: The given tokenizer does not exist, or a file of either cannot be read.
    """
    from tramontane.chat import ChatTemplate, find_template
    from tramontane.tokenizer import Tokenizer

    files = checkpoint.files if options.tokenizer is None else _given(Path(options.tokenizer))
    if "tokenizer.json" not in files and options.tokenizer is None:
        return None, None
    source = find_template(files, options.chat_template)
    written = None if source is None else "\n".join(source.templates.values())
    tokenizer = Tokenizer.from_files(files, template=written)
    return tokenizer, ChatTemplate.from_files(files, tokenizer, override=options.chat_template)


def _given(path: Path) -> Files:
    if path.is_dir():
        return Files.in_directory(path)
    if path.is_file():
        return Files.in_directory(path.parent)
    raise CheckpointError(f"the tokenizer {str(path)!r} does not exist", hint="give a folder or a tokenizer.json file")
