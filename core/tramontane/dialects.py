# SPDX-License-Identifier: Apache-2.0
"""Dialects: what a foreign format calls an architecture's tensors and settings.

A format's plugin reads files and knows no model; an architecture knows no file. A :class:`Dialect` is the data between
them. It belongs to the architecture, is found through its record (``dialects={"format:name": "package.module:NAME"}``)
and serves both directions: reading such a checkpoint, and writing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.errors import CheckpointError
from tramontane.weightmap import WeightMap

if TYPE_CHECKING:
    from tramontane.records import ArchitectureSpec

HUGGING_FACE = "hf"
"""The dialect whose names are the models' own."""


def _frozen_map(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@frozen(kw_only=True)
class Dialect:
    """One architecture in one foreign format.

    A format translates by itself what it calls the same for all architectures (depth, width, heads ...) into
    ``checkpoint.config``, in Hugging Face's spelling. The rest is stated here.

    Attributes:
        name: What the format calls the architecture; several architectures may have one name in a format.
        architecture: The Hugging Face class that runs it.
        names: The map between the model's tensor names and the format's, or a function that makes it from the
            configuration (row orders depend on the number of heads).
        settings: The format's own keys -> keys of the configuration, where the value is the same.
        constants: Values of the configuration that such files never state.
        read: ``read(checkpoint, config)`` gives further values of the configuration, from whatever it takes: metadata,
            shapes, presence of tensors.
        write: ``write(config)`` gives further settings under the format's keys; the inverse of ``read``.
    """

    name: str
    architecture: str
    names: WeightMap | Callable[[Mapping[str, Any]], WeightMap]
    settings: Mapping[str, str] = field(factory=dict, converter=_frozen_map)
    constants: Mapping[str, Any] = field(factory=dict, converter=_frozen_map)
    read: Callable[[Checkpoint, Mapping[str, Any]], Mapping[str, Any]] | None = None
    write: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The configuration of a checkpoint of this dialect, in Hugging Face's spelling."""
        found = {**checkpoint.config, **self.constants}
        for theirs, ours in self.settings.items():
            if theirs in checkpoint.metadata:
                found[ours] = checkpoint.metadata[theirs]
        found["architectures"] = [self.architecture]
        return found if self.read is None else {**found, **self.read(checkpoint, found)}

    def described(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a configuration under the format's keys, beyond those that the format itself translates."""
        found = {theirs: config[ours] for theirs, ours in self.settings.items() if config.get(ours) is not None}
        return found if self.write is None else {**found, **self.write(config)}

    def weight_map(self, config: Mapping[str, Any]) -> WeightMap:
        """The map between the model's tensor names and the format's, for one configuration."""
        return self.names if isinstance(self.names, WeightMap) else self.names(config)


def candidates(dialect: str) -> tuple[str, ...]:
    """Keys under which architectures may know a checkpoint's dialect, the most special first.

    ``gguf:llama+experts`` is ``gguf:llama`` with something that another architecture may be asked for first.
    """
    plain = dialect.partition("+")[0]
    return (dialect,) if plain == dialect else (dialect, plain)


def dialect_of(architecture: ArchitectureSpec, dialect: str) -> Dialect:
    """An architecture's words for a checkpoint's dialect: under its key, or under another that says the same name.

    Raises:
        CheckpointError: The architecture does not know the dialect.
    """
    form, _, name = candidates(dialect)[-1].partition(":")
    keys = {key if ":" in key else f"{key}:{architecture.name}": key for key in architecture.dialects}
    exact = [keys[key] for key in candidates(dialect) if key in keys]
    for key in (*exact, *(stored for full, stored in keys.items() if full.startswith(f"{form}:"))):
        found: Dialect = architecture.load("dialects", key)
        if found.name == name:
            return found
    known = ", ".join(sorted(architecture.dialects)) or "none"
    raise CheckpointError(
        f"architecture {architecture.name!r}{architecture.origin} does not know the dialect {dialect}",
        hint=f"dialects it knows: {known}",
    )


def dialects_of(architecture: ArchitectureSpec, form: str) -> list[Dialect]:
    """An architecture's words for a format, whatever its names in that format; for writing."""
    keys = (key for key in architecture.dialects if key.partition(":")[0] == form)
    return [architecture.load("dialects", key) for key in keys]
