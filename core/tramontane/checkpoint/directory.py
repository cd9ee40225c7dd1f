# SPDX-License-Identifier: Apache-2.0
"""Opening a Hugging Face directory: which files hold the weights, and their tensors as one map.

``config.json`` beside ``model.safetensors``, or shards listed by ``model.safetensors.index.json``. Anything an index
names must be a plain file of that directory. ``consolidated*`` files (another layout of the same weights) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from tramontane.checkpoint.checkpoint import Checkpoint, OpenOptions
from tramontane.checkpoint.files import Files
from tramontane.checkpoint.mapped import MappedFile
from tramontane.checkpoint.pickled import open_pickled, pickle_files
from tramontane.checkpoint.refs import MappedTensor, TensorRef
from tramontane.checkpoint.safetensors import read_header
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
    weights = _Weights.alone(path) if path.is_file() else _Weights.of(directory, files)
    if not weights.names:
        return open_pickled(directory, files, config, options)
    tensors, metadata, mapped = _open_shards(directory, weights)
    return Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
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
    def alone(cls, path: Path) -> _Weights:
        return cls((path.name,), {})

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
    directory: Path, weights: _Weights
) -> tuple[dict[str, TensorRef], dict[str, str], tuple[MappedFile, ...]]:
    paths = {name: contained(directory, name) for name in weights.names}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} of {len(paths)} weight files: {', '.join(missing)}",
            hint="fetch the missing files; an interrupted download is continued by running the same command again",
        )
    tensors: dict[str, TensorRef] = {}
    metadata: dict[str, str] = {}
    mapped = []
    for name, path in paths.items():
        header, file = read_header(path), MappedFile.at(path)
        mapped.append(file)
        metadata |= header.metadata
        for entry in header.entries.values():
            if weights.index.get(entry.name, name) != name:
                continue
            if entry.name in tensors:
                raise CheckpointError(f"{directory}: the tensor {entry.name!r} is stored in two weight files")
            tensors[entry.name] = MappedTensor(
                name=entry.name, dtype=entry.dtype, shape=entry.shape, file=file, offset=entry.offset
            )
        for alias, target in header.aliases.items():
            entry = header.entries[target]
            tensors.setdefault(
                alias,
                MappedTensor(
                    name=alias, dtype=entry.dtype, shape=entry.shape, alias_of=target, file=file, offset=entry.offset
                ),
            )
    absent = [f"{tensor} ({file})" for tensor, file in weights.index.items() if tensor not in tensors]
    if absent:
        shown = ", ".join(absent[:20]) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
        raise CheckpointError(f"{directory / INDEX} lists tensors that the named files do not hold: {shown}")
    return tensors, metadata, tuple(mapped)


def contained(directory: Path, name: str) -> Path:
    """The file ``name`` of a directory, which must be a plain name of a file that really lies there.

    A link is followed only within the directory, or into the ``blobs`` folder of the hub cache that the directory
    belongs to.

    Raises:
        CheckpointError: The name is absolute, leads elsewhere, or is a link that does.
    """
    plain = name and name == Path(name).name and not set(name) & set("/\\:\0") and name not in (".", "..")
    if not plain:
        raise CheckpointError(f"{directory}: the index names the file {name!r}, which is not a plain file name")
    path, home = directory / name, directory.resolve()
    target = path.resolve()
    allowed = [home, *(parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots")]
    if path.is_symlink() and not any(target.is_relative_to(folder) for folder in allowed):
        raise CheckpointError(
            f"{path} is a link that leads out of its directory",
            hint="copy the file there, or link the whole directory instead of single files",
        )
    return path
