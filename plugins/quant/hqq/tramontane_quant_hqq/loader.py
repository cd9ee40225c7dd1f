# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of HQQ's own ``save_quantized``: ``config.json`` beside ``qmodel.pt``, a pickled object of modules.

Each module maps names to tensors, or to numbers, texts and further objects that describe them. They are brought to the
form that HQQ's safetensors have, so that one format reads both.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tramontane.checkpoint import Checkpoint, Files, MemoryTensor, OpenOptions
from tramontane.errors import CheckpointError, UnsafeFormatError

FILE = "qmodel.pt"
UNUSED = ("meta", "weight_quant_params", "scale_quant_params", "zero_quant_params")
"""What is said again, or says how to quantize anew."""


def recognizes(path: Path) -> bool:
    """Whether this is such a file, or a folder with one and no safetensors."""
    if path.is_dir():
        return (path / FILE).is_file() and not any(path.glob("*.safetensors"))
    return path.name == FILE and path.is_file()


def open_qmodel(path: Path | str, options: OpenOptions | None = None) -> Checkpoint:
    """Open such a checkpoint. Torch restores plain values and tensors only (``weights_only``).

    Raises:
        CheckpointError: A file is missing, damaged, or holds something else.
        UnsafeFormatError: The options do not allow pickle.
    """
    path, options = Path(path), options or OpenOptions()
    folder = path if path.is_dir() else path.parent
    if not options.allow_pickle:
        raise UnsafeFormatError(
            f"{folder / FILE} is a pickle, which can run code when loaded",
            hint="look for a checkpoint as safetensors, or pass --allow-pickle if you trust it",
        )
    files = Files.in_directory(folder)
    config = files.json("config.json")
    if config is None:
        raise CheckpointError(f"{folder} has no config.json, so the model's architecture is unknown")
    tensors = {name: MemoryTensor.of(name, tensor) for name, tensor in _tensors(_load(folder / FILE))}
    return Checkpoint(path=folder, config=config, tensors=tensors, files=files)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} holds more than plain values, or is damaged: {reason}") from error
    if not isinstance(content, Mapping) or not all(isinstance(module, Mapping) for module in content.values()):
        raise CheckpointError(f"{path} is not a map of modules")
    return content


def _tensors(modules: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for module, content in modules.items():
        inner = content.get("meta")
        flat = {**content, **inner} if isinstance(inner, Mapping) else dict(content)
        yield from _fields(f"{module}.", {name: value for name, value in flat.items() if name not in UNUSED})


def _fields(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _fields(f"{prefix}{name}_", value)
        elif value is not None:
            encoded = _encoded(value)
            if encoded is not None:
                yield f"{prefix}{name}", encoded


def _encoded(value: Any) -> Tensor | None:
    """A described value as a tensor; ``None`` for what describes nothing that is read."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, str):
        return torch.tensor([ord(letter) for letter in value], dtype=torch.uint8)
    if isinstance(value, bool | int | float):
        return torch.tensor(value)
    if isinstance(value, tuple | list) and all(isinstance(item, int) for item in value):
        return torch.tensor(list(value))
    return None
