# SPDX-License-Identifier: Apache-2.0
"""Which layers see everything and which a window: ``layer_types``, as many families state it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.config.reading import derived
from tramontane.errors import ConfigError

KINDS = ("full_attention", "sliding_attention")
"""Kinds of layers that most families know."""


def layer_types_field(kinds: tuple[str, ...] = KINDS) -> Any:
    """An attrs field that holds :func:`read_layer_types` of the whole mapping, or ``None``."""

    def read(config: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
        return read_layer_types(config, where, kinds=kinds)

    return derived(read, default=None)


def read_layer_types(
    config: Mapping[str, Any], where: str = "config.json", *, kinds: tuple[str, ...] = KINDS
) -> tuple[str, ...] | None:
    """The kind of each layer, one of ``kinds``; ``None`` where the configuration does not say.

    Raises:
        ConfigError: A kind is not known, or layers are missing.
    """
    stated, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if stated is None:
        return None
    if not isinstance(stated, list | tuple) or not isinstance(layers, int) or len(stated) < layers:
        raise ConfigError(f"layer_types must be a list with an entry for each of the {layers} layers, not {stated!r}")
    unknown = sorted({str(kind) for kind in stated} - set(kinds))
    if unknown:
        raise ConfigError(
            f"layers of the type {', '.join(unknown)} are not known", hint=f"known types: {', '.join(kinds)}"
        )
    return tuple(stated[:layers])
