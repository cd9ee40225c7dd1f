# SPDX-License-Identifier: Apache-2.0
"""Checkpoints stored as pickle: refused with the reason, or read by torch's restricted unpickler when asked for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tramontane.checkpoint.checkpoint import Checkpoint, OpenOptions
from tramontane.checkpoint.files import Files
from tramontane.checkpoint.refs import MemoryTensor, TensorRef
from tramontane.errors import CheckpointError, UnsafeFormatError
from tramontane.hub.layout import PICKLE


def pickle_files(directory: Path) -> list[str]:
    """Names of the weight files of a directory that are pickles, sorted."""
    return sorted(path.name for path in directory.iterdir() if PICKLE.fullmatch(path.name))


def open_pickled(directory: Path, files: Files, config: Mapping[str, Any], options: OpenOptions) -> Checkpoint:
    """Open pickled weights, if there are any and the options allow it.

    Torch maps the file and restores tensors only (``weights_only=True``); anything else in the pickle is an error.

    Raises:
        CheckpointError: There are no weights at all, or the files are damaged or hold more than tensors.
        UnsafeFormatError: The options do not allow pickle.
    """
    names = pickle_files(directory)
    if not names:
        raise CheckpointError(
            f"{directory} has a config.json but no weights",
            hint="expected model.safetensors, or model-00001-of-0000N.safetensors with an index",
        )
    if not options.allow_pickle:
        raise UnsafeFormatError(
            f"{directory} has its weights as pickle only ({', '.join(names)}), and a pickle can run code when loaded",
            hint="convert it to safetensors, look for a revision that has them, or pass --allow-pickle if you trust it",
        )
    tensors: dict[str, TensorRef] = {}
    for name in names:
        for key, value in _load(directory / name).items():
            if key in tensors:
                raise CheckpointError(f"{directory}: the tensor {key!r} is stored in two weight files")
            tensors[key] = MemoryTensor.of(key, value.detach())
    return Checkpoint(path=directory, config=config, tensors=tensors, files=files)


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} holds more than tensors, or is damaged: {reason}") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{path} is not a map of names to tensors")
    return content
