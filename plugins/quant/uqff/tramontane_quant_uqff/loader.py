# SPDX-License-Identifier: Apache-2.0
"""Opens a model that mistral.rs quantized and saved: ``.uqff`` files beside a configuration, a tokenizer and
``residual.safetensors``.

The files are safetensors. Since version 1.0 every layer is a few named tensors; before, it was a numbered blob, which
:mod:`tramontane_quant_uqff.blobs` cuts into the same tensors. Weights stay in the mapped files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from tramontane.checkpoint import Checkpoint, Files, MappedFile, MappedTensor, OpenOptions, TensorRef
from tramontane.checkpoint.safetensors import Header, read_header
from tramontane.errors import CheckpointError
from tramontane_quant_uqff.blobs import layers_of
from tramontane_quant_uqff.files import label_of, shards
from tramontane_quant_uqff.names import FORMAT, NUMBERED, RESIDUAL, SUFFIX, VERSION_KEYS, WRITTEN
from tramontane_quant_uqff.order import RENAMED, names_of

Opened = tuple[MappedFile, Header]


def recognizes(path: Path) -> bool:
    """Whether :func:`open_uqff` is the loader for this path: such a file, or a folder that holds one."""
    return any(path.glob(f"*{SUFFIX}")) if path.is_dir() else path.suffix == SUFFIX and path.is_file()


def open_uqff(path: Path | str, options: OpenOptions | None = None) -> Checkpoint:
    """Open a model. Reads headers, and of old files the descriptions within blobs.

    Args:
        path: One of the files with layers, or the folder.
        options: As for every loader; nothing in them concerns this format.

    Raises:
        CheckpointError: Files are missing, damaged or hostile, of a version that is not known, or the folder holds
            several models.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = Files.in_directory(folder)
    config = files.json("config.json")
    if config is None or RESIDUAL not in files:
        missing = "config.json" if config is None else RESIDUAL
        raise CheckpointError(
            f"{folder} has no {missing}, without which the layers in {SUFFIX} files are no model",
            hint="fetch the whole repository",
        )
    opened = [_open(one) for one in shards(path, files)]
    residual = _open(folder / RESIDUAL)
    version = _version(opened)
    plain = _references([residual]) if version else _renamed(_references([residual]), config)
    layers = _references(opened) if version else _numbered(path, opened, config, plain)
    both = sorted(set(layers) & set(plain))
    if both:
        raise CheckpointError(f"{path}: {both[0]!r} is stored as a layer and in {RESIDUAL} too")
    tensors = {name: ref for name, ref in (layers | plain).items() if name not in VERSION_KEYS}
    return Checkpoint(
        path=path,
        config=_settings(config, tensors),
        tensors=tensors,
        metadata=dict(opened[0][1].metadata),
        files=files,
        types=label_of(opened[0][0].path),
        on_close=tuple(file.close for file, _ in (*opened, residual)),
    )


def _open(path: Path) -> Opened:
    return MappedFile.at(path), read_header(path)


def _references(opened: Iterable[Opened]) -> dict[str, TensorRef]:
    """All tensors by name. The version is said in the first file at least."""
    found: dict[str, TensorRef] = {}
    for file, header in opened:
        for entry in header.entries.values():
            if entry.name in found and entry.name not in VERSION_KEYS:
                raise CheckpointError(f"{file.path}: the tensor {entry.name!r} is stored in another file too")
            found[entry.name] = MappedTensor(
                name=entry.name, dtype=entry.dtype, shape=entry.shape, file=file, offset=entry.offset
            )
    return found


def _version(opened: Iterable[Opened]) -> tuple[int, int, int] | None:
    """What the files say; ``None`` for the numbered blobs of before 1.0.

    Raises:
        CheckpointError: They say nothing, different things, or something that is not known here.
    """
    said: dict[str, int] = {}
    names: set[str] = set()
    for file, header in opened:
        names |= set(header.entries)
        for key in VERSION_KEYS:
            entry = header.entries.get(key)
            if entry is None:
                continue
            if entry.dtype is not torch.uint32 or entry.shape != ():
                raise CheckpointError(f"{file.path}: {key} is no single number")
            value = int(file.tensor(entry.offset, entry.dtype, ()))
            if said.setdefault(key, value) != value:
                raise CheckpointError(f"{file.path} says {key} is {value}, another file of the model {said[key]}")
    where = next(iter(opened))[0].path
    if not said and names and all(name.isascii() and name.isdecimal() for name in names):
        return None
    if len(said) != len(VERSION_KEYS):
        raise CheckpointError(f"{where} does not say which version of UQFF it is")
    major, minor, patch = (said[key] for key in VERSION_KEYS)
    if major != WRITTEN[0] or minor > WRITTEN[1]:
        read = f"0.1 to 0.{NUMBERED[1]} and 1.0 to 1.{WRITTEN[1]}"
        raise CheckpointError(
            f"{where} is of UQFF version {major}.{minor}.{patch}; {read} are read",
            hint="a newer version of tramontane-quant-uqff may read it",
        )
    return major, minor, patch


def _renamed(plain: dict[str, TensorRef], config: Mapping[str, Any]) -> dict[str, TensorRef]:
    """The residual tensors by the model's own names."""
    classes = config.get("architectures")
    names = RENAMED.get(str(classes[0]), {}) if isinstance(classes, list) and classes else {}
    for module, name in names.items():
        for field in ("weight", "bias"):
            ref = plain.pop(f"{module}.{field}", None)
            if ref is not None:
                ref.name = f"{name}.{field}"
                plain.setdefault(ref.name, ref)
    return plain


def _numbered(
    path: Path, opened: Iterable[Opened], config: Mapping[str, Any], plain: Mapping[str, TensorRef]
) -> dict[str, TensorRef]:
    """The tensors of numbered blobs, by the names of the layers that they are."""
    blobs = {int(entry.name): (file, entry) for file, header in opened for entry in header.entries.values()}
    count = sum(len(header.entries) for _, header in opened)
    if sorted(blobs) != list(range(count)):
        raise CheckpointError(f"{path}: the layers are not numbered from 0 to {count - 1}, each once")
    return layers_of(blobs, lambda shapes: names_of(shapes, config, plain, str(path)))


def _settings(config: Mapping[str, Any], tensors: Mapping[str, TensorRef]) -> dict[str, Any]:
    """The configuration of what is stored: nothing of how the original was quantized; and before 1.2 a head that is
    tied was quantized apart, while the embedding stayed as it was."""
    found = {key: value for key, value in config.items() if key != "quantization_config"}
    if f"lm_head.{FORMAT}" in tensors and any(name.endswith("embed_tokens.weight") for name in tensors):
        found["tie_word_embeddings"] = False
    return found
