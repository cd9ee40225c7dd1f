# SPDX-License-Identifier: Apache-2.0
"""Tries every lazy string of every record: what ``tramontane plugins --check`` does. It imports a great deal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from tramontane.errors import PluginError
from tramontane.plugins import Plugins
from tramontane.records import Record, resolve


def references(record: Record) -> Iterator[str]:
    """Every lazy string in ``record``."""
    for attribute in attrs.fields(type(record)):
        if attribute.metadata.get("lazy"):
            value = getattr(record, attribute.name)
            if isinstance(value, Mapping):
                yield from value.values()
            elif value is not None:
                yield value


def broken_references(plugins: Plugins) -> tuple[str, ...]:
    """One line for each reference that cannot be resolved."""
    broken = []
    for loaded in plugins.loaded:
        for record in loaded.records:
            for lazy in references(record):
                try:
                    resolve(lazy, record)
                except PluginError as error:
                    broken.append(error.message)
    return tuple(dict.fromkeys(broken))
