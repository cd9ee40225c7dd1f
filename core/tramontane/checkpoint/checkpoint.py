# SPDX-License-Identifier: Apache-2.0
"""What a loader hands to the builder: configuration, lazy tensors and the files beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from attrs import define, field, frozen

from tramontane.checkpoint.files import Files
from tramontane.checkpoint.refs import TensorRef
from tramontane.errors import CheckpointError

CANONICAL = "canonical"
"""The dialect in which every tensor has the model's own name, whatever other checkpoints call it."""


def _frozen_map(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@frozen(kw_only=True)
class OpenOptions:
    """How a checkpoint is opened.

    Attributes:
        allow_pickle: Read ``.bin``/``.pt``/``.pth`` weights too (through torch's restricted unpickler). Off by default:
            pickle can run code.
    """

    allow_pickle: bool = False


@define(kw_only=True, eq=False, slots=False)
class Checkpoint:
    """An opened checkpoint. Opening reads headers and the configuration; tensor data is read when asked.

    Attributes:
        path: The directory or file it was opened from.
        config: The model's configuration in Hugging Face's spelling (``config.json``).
        tensors: Name -> :class:`TensorRef`, names as in the checkpoint's dialect.
        dialect: Which naming of modules the checkpoint uses: ``hf``, ``canonical`` (the model's own
            names), or another key of the architecture's dialects.
        metadata: What the weight files say about themselves.
        files: Tokenizer, templates and other small files.
        types: Names, in lower case, under which people know the types that the weights are stored in (``q4_k_m``):
            asking for one of them is asking for nothing more.
    """

    path: Path
    config: Mapping[str, Any] = field(converter=_frozen_map)
    tensors: Mapping[str, TensorRef] = field(converter=_frozen_map, repr=False)
    dialect: str = "hf"
    metadata: Mapping[str, Any] = field(converter=_frozen_map, factory=dict, repr=False)
    files: Files = field(factory=Files, repr=False)
    types: frozenset[str] = field(default=frozenset(), repr=False)
    _on_close: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Class names that ``config.json`` states; empty if it states none.

        Raises:
            CheckpointError: The entry is not a list of names.
        """
        names = self.config.get("architectures") or ()
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(
                f"{self.path}: 'architectures' in the configuration is not a list of names: {names!r}"
            )
        return tuple(names)

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """Content of ``generation_config.json``; empty if there is none."""
        return _frozen_map(self.files.json("generation_config.json") or {})

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tensors; aliases count once."""
        return sum(ref.nbytes for ref in self.tensors.values() if ref.alias_of is None)

    def close(self) -> None:
        """Let go of the files. Tensors that were read stay valid, further reads raise."""
        for call in self._on_close:
            call()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
