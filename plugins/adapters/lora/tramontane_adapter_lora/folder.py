# SPDX-License-Identifier: Apache-2.0
"""The folder of an adapter: its configuration, and one weight file that lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tramontane.adapters import Adapter
from tramontane.checkpoint import Files, open_tensors
from tramontane.checkpoint.containment import contained
from tramontane.errors import AdapterError, TramontaneError, UnsafeFormatError
from tramontane_adapter_lora.pairs import MAX_NAMED, Pairs

CONFIG = "adapter_config.json"


def folder_of(path: Path) -> Path:
    """The folder, whether it or a file in it was named."""
    return path if path.is_dir() else path.parent


def peek(path: Path) -> Mapping[str, Any] | None:
    """The configuration, empty where it cannot be read; ``None`` where there is none."""
    try:
        return Files.in_directory(folder_of(path)).json(CONFIG)
    except (TramontaneError, OSError):
        return {}


def read(folder: Path) -> Mapping[str, Any]:
    """The configuration.

    Raises:
        AdapterError: There is none.
        CheckpointError: It cannot be read.
    """
    config = Files.in_directory(folder).json(CONFIG)
    if config is None:
        raise AdapterError(
            f"{folder} has no {CONFIG}, so the adapter's scale is unknown",
            hint="give the whole folder that training wrote",
        )
    return config


def open_pairs(kind: str, folder: Path, weights: str, pickle: str | None, pairs: Pairs, base: str | None) -> Adapter:
    """The adapter whose pairs are in one file of a folder.

    Raises:
        AdapterError: The file is missing, or its tensors are no pairs.
        UnsafeFormatError: The weights exist as pickle only, which is never loaded.
        CheckpointError: The file is damaged or hostile.
    """
    path = contained(folder, weights)
    if not path.is_file():
        if pickle is not None and (folder / pickle).is_file():
            raise UnsafeFormatError(
                f"{folder} has its weights as pickle only ({pickle}), and a pickle can run code when loaded",
                hint="save it again with a current version of PEFT, which writes safetensors",
            )
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:MAX_NAMED])
        raise AdapterError(f"{folder} has no {weights}; it has {held}", hint="an interrupted download can be run again")
    tensors, _, mapped = open_tensors(path)
    try:
        deltas = pairs.of(tensors)
    except BaseException:
        mapped.close()
        raise
    return Adapter(kind=kind, path=folder, deltas=deltas, base=base, on_close=(mapped.close,))
