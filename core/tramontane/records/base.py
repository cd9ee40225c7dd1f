# SPDX-License-Identifier: Apache-2.0
"""What all records share: a checked name, a version, lazy references and their import.

Owns the form of a record; never what any kind of record means.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from attrs import NOTHING, Attribute, field, frozen

from tramontane.errors import PluginError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LAZY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def resolve(lazy: str, record: Record | None = None) -> Any:
    """Import what a lazy string points to.

    Args:
        lazy: ``"package.module:Name"``; the name may be dotted.
        record: The record the string came from, so that an error can name it and its plugin.

    Raises:
        PluginError: The string is malformed, or importing the module or finding the name failed, whatever the reason:
            a plugin that calls ``sys.exit`` at import fails like one with a syntax error.
    """
    owner = f"{record.kind} {record.name!r}{record.origin}" if record is not None else "a lazy reference"
    if not _LAZY.fullmatch(lazy):
        raise PluginError(f"{owner}: {lazy!r} is not of the form 'package.module:Name'")
    module_name, _, path = lazy.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"{owner} points to {lazy!r}, which cannot be loaded: {type(error).__name__}: {error}",
            hint="`tramontane plugins --check` tries every such reference of every plugin",
        ) from error
    return found


def _texts(value: Iterable[str]) -> object:
    return value if isinstance(value, str) else tuple(value)  # a lone string is refused, not split into characters


def _frozen_mapping(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(value))


def _refuse(record: Record, attribute: Attribute[Any], wanted: str, value: object) -> PluginError:
    name = getattr(record, "name", None)
    return PluginError(f"{type(record).__name__} {name!r}: {attribute.name} must be {wanted}, got {value!r}")


def _check_name(record: Record, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _refuse(record, attribute, "letters, digits, '.', '_' and '-'", value)


def _check_lazy(record: Record, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not _LAZY.fullmatch(value):
        raise _refuse(record, attribute, "a lazy string 'package.module:Name'", value)


def _check_optional_lazy(record: Record, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _check_lazy(record, attribute, value)


def _check_lazy_values(record: Record, attribute: Attribute[Any], value: Mapping[str, object]) -> None:
    for item in value.values():
        _check_lazy(record, attribute, item)


def _check_names(record: Record, attribute: Attribute[Any], value: Mapping[object, object]) -> None:
    for one in (*value.keys(), *value.values()):
        _check_name(record, attribute, one)


def _check_texts(record: Record, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
        raise _refuse(record, attribute, "a tuple of non-empty strings", value)


def _check_sentence(record: Record, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise _refuse(record, attribute, "one line of text", value)


def lazy() -> Any:
    """A field that holds a lazy string."""
    return field(validator=_check_lazy, metadata={"lazy": True})


def optional_lazy() -> Any:
    """A field that holds a lazy string or None."""
    return field(default=None, validator=_check_optional_lazy, metadata={"lazy": True})


def lazy_mapping() -> Any:
    """A field that maps keys to lazy strings."""
    return field(
        factory=dict,
        converter=_frozen_mapping,
        validator=_check_lazy_values,
        hash=False,
        metadata={"lazy": True},
    )


def names() -> Any:
    """A field that maps names to names."""
    return field(factory=dict, converter=_frozen_mapping, validator=_check_names, hash=False)


def name() -> Any:
    """A required field that holds a name."""
    return field(validator=_check_name)


def sentence() -> Any:
    """A required field that holds one line of text for people."""
    return field(validator=_check_sentence)


def texts(default: Any = NOTHING) -> Any:
    """A field that holds a tuple of non-empty strings."""
    return field(default=default, converter=_texts, validator=_check_texts)


@frozen(kw_only=True)
class Record:
    """What all records share."""

    kind: ClassVar[str]
    """The word for this kind in catalogs and messages."""
    API: ClassVar[int] = 1
    """The current version of this kind of record."""

    name: str = field(validator=_check_name)
    """Unique within the kind; what people type and read."""
    api: int = 1
    """The version of this kind of record that the plugin was written for."""
    plugin: str = ""
    """The plugin it came from; filled in by the kernel, never by a plugin."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every name under which a catalog finds this record."""
        return (self.name,)

    @property
    def origin(self) -> str:
        """``" of plugin X"`` for messages, empty when nobody has registered the record."""
        return f" of plugin {self.plugin}" if self.plugin else ""

    def load(self, attribute: str, key: str | None = None) -> Any:
        """Import what one of this record's lazy fields points to (``key`` for a field that is a mapping).

        Raises:
            PluginError: The field is empty, or what it points to cannot be imported.
        """
        value = getattr(self, attribute)
        lazy = value.get(key) if key is not None else value
        if lazy is None:
            what = f"{attribute}[{key!r}]" if key is not None else attribute
            raise PluginError(f"{self.kind} {self.name!r}{self.origin} has no {what}")
        return resolve(lazy, self)
