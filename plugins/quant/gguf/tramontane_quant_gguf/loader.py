# SPDX-License-Identifier: Apache-2.0
"""Opens GGUF files (one, or split over several) and the older ggjt files as checkpoints.

Tensors stay in the mapped file. The configuration holds what the format calls the same for all architectures; the
architecture's dialect says the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tramontane.checkpoint import Checkpoint, OpenOptions, TensorRef
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.choice import BITS, SIZES, choose, label_of
from tramontane_quant_gguf.reading import Metadata, ggjt, parse
from tramontane_quant_gguf.reading.mapping import first_bytes, mapped
from tramontane_quant_gguf.reading.refs import references
from tramontane_quant_gguf.reading.splits import Opened, open_all
from tramontane_quant_gguf.settings import read_settings
from tramontane_quant_gguf.vocabulary import files_of

SUFFIX = ".gguf"
ARCHITECTURE = "general.architecture"


def recognizes(path: Path) -> bool:
    """Whether :func:`open_gguf` is the loader for this path: a file by its first bytes, a folder by its names."""
    if path.is_dir():
        return any(path.glob(f"*{SUFFIX}")) and not any(path.glob("*.safetensors"))
    return path.is_file() and first_bytes(path) in (parse.MAGIC, ggjt.MAGIC, *ggjt.OLDER)


def open_gguf(path: Path | str, options: OpenOptions | None = None) -> Checkpoint:
    """Open a file, and the other files of the same model. Reads headers and no tensor data.

    Args:
        path: The file; of a split model, any of its files; or a folder that holds one model.
        options: As for every loader; nothing in them concerns this format.

    Raises:
        CheckpointError: The file is of an unknown version, damaged or hostile, or other files of the model are missing;
            or the folder holds several models.
    """
    path = _only_file(Path(path))
    magic = first_bytes(path)
    if magic in ggjt.OLDER:
        raise CheckpointError(
            f"{path} is a {ggjt.OLDER[magic]} file, which is older than anything that is read here",
            hint="convert the original model again, to GGUF",
        )
    if magic == ggjt.MAGIC:
        opened: Sequence[Opened] = [Opened(path, ggjt.parse_ggjt(mapped(path), str(path)))]
        return _checkpoint(path, "ggjt", opened)
    return _checkpoint(path, "gguf", open_all(path))


def _only_file(path: Path) -> Path:
    """The path, or the first file of the only model in it."""
    if not path.is_dir():
        return path
    names = sorted(file.name for file in path.glob(f"*{SUFFIX}"))
    found = choose(names, None)
    if not found:
        raise CheckpointError(
            f"{path} has {len(names)} GGUF files: {', '.join(names[:20])}",
            hint="give one file's path, or the type of one of them with --quant",
        )
    return path / found[0]


def _checkpoint(path: Path, form: str, opened: Sequence[Opened]) -> Checkpoint:
    tensors, files = references(opened)
    return described(path, form, opened[0].header.metadata, tensors, tuple(file.close for file in files))


def described(
    path: Path,
    form: str,
    metadata: Metadata,
    tensors: Mapping[str, TensorRef],
    on_close: tuple[Callable[[], None], ...] = (),
) -> Checkpoint:
    """What metadata and tensors together say, whether they were read or are about to be written.

    Raises:
        CheckpointError: A setting is missing or of the wrong kind.
    """
    name = _architecture(metadata)
    experts = metadata.whole(f"{name}.expert_count")
    return Checkpoint(
        path=path,
        config=read_settings(metadata, name, tensors),
        tensors=tensors,
        dialect=f"{form}:{name}+experts" if experts else f"{form}:{name}",
        metadata=metadata.values,
        files=files_of(metadata),
        types=_types(path, tensors),
        on_close=on_close,
    )


def _types(path: Path, tensors: Mapping[str, TensorRef]) -> frozenset[str]:
    """What people call the type that most of the weights are in: a block, mixtures, bits, and as the file is named."""
    bytes_of: Counter[str] = Counter()
    for ref in tensors.values():
        bytes_of[ref.encoding or ""] += ref.nbytes
    most = max(bytes_of, key=lambda kind: (bytes_of[kind], kind), default="")
    if not most:
        return frozenset()
    names = {most, most.replace("_", ""), *(f"{most}_{size}" for size in SIZES if most.endswith("_k"))}
    bits = {number for number, labels in BITS.items() if names & set(labels)}
    return frozenset({*names, *bits, label_of(path.name)} - {""})


def _architecture(metadata: Metadata) -> str:
    name = metadata.text(ARCHITECTURE)
    if not name or not name.isprintable() or len(name) > 64 or set(name) & set(":+/ "):
        raise CheckpointError(f"{metadata.where} does not say its architecture ({ARCHITECTURE} is {name!r:.80})")
    return name
