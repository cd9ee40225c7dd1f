# SPDX-License-Identifier: Apache-2.0
"""Opens the packaged checkpoint: an ordinary Hugging Face folder, read by the core once it is known to be whole."""

from __future__ import annotations

from pathlib import Path

from tramontane.checkpoint import Checkpoint, OpenOptions, open_checkpoint
from tramontane.errors import CheckpointError
from tramontane_loader_demo.plugin import FOLDER

FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def is_demo(path: Path | str) -> bool:
    """Whether `path` is this package's own folder."""
    return Path(path).resolve() == FOLDER.resolve()


def open_demo(source: Path | str = FOLDER, options: OpenOptions | None = None) -> Checkpoint:
    """The demo model's checkpoint.

    Args:
        source: The packaged folder.
        options: As for every loader.

    Raises:
        CheckpointError: The installation lost files; they are all named.
    """
    folder = Path(source)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"the demo model in {folder} lacks {', '.join(missing)}",
            hint="install it again: pip install --force-reinstall --no-deps tramontane-loader-demo",
        )
    return open_checkpoint(folder, options)
