# SPDX-License-Identifier: Apache-2.0
"""Opening a Hugging Face directory: which files hold the weights, and their tensors as one map.

``config.json`` beside ``model.safetensors``, or shards listed by ``model.safetensors.index.json``. Anything an index
names must be a plain file of that directory. ``consolidated*`` files (another layout of the same weights) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from tramontane.checkpoint.checkpoint import CANONICAL, Checkpoint, OpenOptions
from tramontane.checkpoint.containment import contained
from tramontane.checkpoint.files import Files
from tramontane.checkpoint.mapped import MappedFile
from tramontane.checkpoint.pickled import open_pickled, pickle_files
from tramontane.checkpoint.refs import MappedTensor, TensorRef
from tramontane.checkpoint.safetensors import Header, read_header
from tramontane.errors import CheckpointError
from tramontane.hub.layout import INDEX, OTHER_LAYOUT, SHARD


def recognizes(path: Path) -> bool:
    """Whether :func:`open_checkpoint` is the loader for this path: a ``.safetensors`` file, or a directory with weights
    as safetensors or pickle."""
    if path.is_dir():
        return any(path.glob("*.safetensors")) or (path / INDEX).is_file() or bool(pickle_files(path))
    return path.suffix == ".safetensors" and path.is_file()


def open_checkpoint(path: Path | str, options: OpenOptions | None = None) -> Checkpoint:
    """Open a local checkpoint. Reads the configuration and the tensors' headers, no tensor data, no network.

    Args:
        path: The directory, or one ``.safetensors`` file with ``config.json`` beside it.
        options: See :class:`OpenOptions`.

    Raises:
        CheckpointError: Files are missing, damaged or hostile.
        UnsafeFormatError: The weights exist as pickle only and that was not asked for.
    """
    path, options = Path(path), options or OpenOptions()
    directory = path if path.is_dir() else path.parent
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    files = Files.in_directory(directory)
    config = files.json("config.json")
    if config is None:
        raise CheckpointError(
            f"{directory} has no config.json, so the model's architecture is unknown",
            hint="give the directory of a whole Hugging Face checkpoint",
        )
    alone = path.is_file() and not SHARD.fullmatch(path.name)
    weights = _Weights((path.name,), {}) if alone else _Weights.of(directory, files)
    if not weights.names:
        return open_pickled(directory, files, config, options)
    paths = {path.name: path} if alone else {name: contained(directory, name) for name in weights.names}
    tensors, metadata, mapped = _open_shards(directory, paths, weights.index)
    return Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
        dialect=CANONICAL if metadata.get("dialect") == CANONICAL else "hf",
        metadata=metadata,
        files=files,
        on_close=tuple(file.close for file in mapped),
    )


@frozen
class _Weights:
    """Which files hold the weights, and, where an index says so, which tensor each of them must hold."""

    names: tuple[str, ...]
    index: Mapping[str, str]

    @classmethod
    def of(cls, directory: Path, files: Files) -> _Weights:
        index = files.json(INDEX)
        if index is not None:
            placed = index.get("weight_map")
            if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
                raise CheckpointError(f"{directory / INDEX} has no weight_map of file names")
            return cls(tuple(sorted(set(placed.values()))), placed)
        stored = [name for name in files.entries if name.endswith(".safetensors")]
        if "model.safetensors" in stored:
            return cls(("model.safetensors",), {})
        shards = sorted(name for name in stored if SHARD.fullmatch(name))
        if shards:
            count = int(SHARD.fullmatch(shards[0])[2])  # type: ignore[index]
            return cls(tuple(f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)), {})
        others = sorted(name for name in stored if not OTHER_LAYOUT.fullmatch(name))
        if stored and not others and not pickle_files(directory):
            raise CheckpointError(
                f"{directory} holds its weights only as {', '.join(stored)}, which is not a layout of this loader",
                hint="use the repository's model*.safetensors files",
            )
        return cls(tuple(others), {})


def _open_shards(
    directory: Path, paths: Mapping[str, Path], index: Mapping[str, str]
) -> tuple[dict[str, TensorRef], dict[str, str], tuple[MappedFile, ...]]:
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} of {len(paths)} weight files: {_listing(missing)}",
            hint="fetch the missing files; an interrupted download is continued by running the same command again",
        )
    tensors: dict[str, TensorRef] = {}
    metadata: dict[str, str] = {}
    mapped = []
    for name, path in paths.items():
        references, header, file = open_tensors(path)
        mapped.append(file)
        metadata |= header.metadata
        for ref in references:
            if index.get(ref.name, name) != name:
                continue  # the index gives this tensor to another shard
            known = tensors.get(ref.name)
            if known is None or (known.alias_of is not None and ref.alias_of is None):
                tensors[ref.name] = ref
            elif ref.alias_of is None:
                raise CheckpointError(f"{directory}: the tensor {ref.name!r} is stored in two weight files")
    absent = [f"{tensor} ({file})" for tensor, file in index.items() if tensor not in tensors]
    if absent:
        raise CheckpointError(f"{directory / INDEX} lists tensors that the files do not hold: {_listing(absent)}")
    return tensors, metadata, tuple(mapped)


def open_tensors(path: Path) -> tuple[list[MappedTensor], Header, MappedFile]:
    """One safetensors file: its tensors (those that its metadata states as aliases last), its header, and the mapping
    to close.

    Raises:
        CheckpointError: The file is damaged or hostile.
    """
    header, file = read_header(path), MappedFile.at(path)
    named = [(entry.name, entry, None) for entry in header.entries.values()]
    aliases = [(alias, header.entries[target], target) for alias, target in header.aliases.items()]
    encodings = header.encodings
    references = [
        MappedTensor(
            name=name,
            dtype=e.dtype,
            shape=e.shape,
            encoding=encodings.get(target or name, ""),
            alias_of=target,
            file=file,
            offset=e.offset,
        )
        for name, e, target in (*named, *aliases)
    ]
    return references, header, file


def _listing(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
