# SPDX-License-Identifier: Apache-2.0
"""Opens GGUF files (one, or split over several) and the older ggjt files as checkpoints.

Tensors stay in the mapped file. The configuration holds what the format calls the same for all architectures; the
architecture's dialect says the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tramontane.checkpoint import Checkpoint, OpenOptions, TensorRef
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading import Metadata, ggjt, parse
from tramontane_quant_gguf.reading.mapping import first_bytes, mapped
from tramontane_quant_gguf.reading.refs import references
from tramontane_quant_gguf.reading.splits import Opened, open_all
from tramontane_quant_gguf.settings import read_settings
from tramontane_quant_gguf.vocabulary import files_of

SUFFIX = ".gguf"
ARCHITECTURE = "general.architecture"


def recognizes(path: Path) -> bool:
    """Whether :func:`open_gguf` is the loader for this path: by the first bytes of a file."""
    return path.is_file() and first_bytes(path) in (parse.MAGIC, ggjt.MAGIC, *ggjt.OLDER)


def open_gguf(path: Path | str, options: OpenOptions | None = None) -> Checkpoint:
    """Open a file, and the other files of the same model. Reads headers and no tensor data.

    Args:
        path: The file; of a split model, any of its files.
        options: As for every loader; nothing in them concerns this format.

    Raises:
        CheckpointError: The file is of an unknown version, damaged or hostile, or other files of the model are missing.
    """
    path = Path(path)
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
        on_close=on_close,
    )


def _architecture(metadata: Metadata) -> str:
    name = metadata.text(ARCHITECTURE)
    if not name or not name.isprintable() or len(name) > 64 or set(name) & set(":+/ "):
        raise CheckpointError(f"{metadata.where} does not say its architecture ({ARCHITECTURE} is {name!r:.80})")
    return name
