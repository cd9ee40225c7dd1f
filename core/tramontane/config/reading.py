# SPDX-License-Identifier: Apache-2.0
"""Reading mappings (``config.json`` and the like) into attrs classes.

Tolerant of unknown keys where the file is someone else's, strict where it is ours. Everything wrong with a file is
reported in one error, each fault with its path. Values are never coerced across kinds: ``"12"`` is not a number.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, cast

import attrs
import cattrs
from attrs import frozen
from cattrs.errors import StructureHandlerNotFoundError

from tramontane.errors import ConfigError

T = TypeVar("T")

_KEYS = "tramontane.config.keys"
_DERIVE = "tramontane.config.derive"


@frozen
class AtLeast:
    """Annotation of a whole number with a lower bound; see :data:`Size`."""

    bound: int


#: A whole number from 1 to 2**31 - 1: counts and dimensions that a file states.
Size = Annotated[int, AtLeast(1)]
_LARGEST = 2**31 - 1


class _FaultsError(Exception):
    """Everything wrong with one value: pairs of a path (relative to the value) and a sentence."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__(faults)
        self.faults = faults


def renamed(*keys: str, **options: Any) -> Any:
    """An attrs field read from the first of ``keys`` that the mapping has, instead of from its own name.

    ``options`` go to :func:`attrs.field` (``default``, ``validator`` ...).
    """
    return attrs.field(metadata={_KEYS: keys}, **options)


def derived(read: Callable[[Mapping[str, Any], str], Any], **options: Any) -> Any:
    """An attrs field computed from the whole mapping by ``read(mapping, where)``.

    ``read`` raises :class:`ConfigError` for what it cannot use; that is reported with the other faults.
    """
    return attrs.field(metadata={_DERIVE: read}, **options)


def read_config(cls: type[T], mapping: Mapping[str, Any], where: str = "config.json", *, strict: bool = False) -> T:
    """Make an attrs class from a mapping.

    A key with the value null counts as absent where the field does not admit null but has a default. Whole numbers are
    taken for floats, and whole floats for integers. Nested attrs classes are read alike.

    Args:
        cls: The attrs class. Fields may be made with :func:`renamed` and :func:`derived`.
        mapping: What the file says.
        where: Names the file in errors.
        strict: Refuse keys that the class does not know, naming near misses.

    Raises:
        ConfigError: Keys are missing, wrong or (strict) unknown; all are named.
    """
    converter = _STRICT if strict else _TOLERANT
    try:
        return cast(T, _read_class(converter, cls, mapping, where, strict))
    except _FaultsError as error:
        lines = "".join(f"\n  {path or 'the whole'}: {text}" for path, text in error.faults)
        count = len(error.faults)
        raise ConfigError(f"{where} has {count} unusable {'key' if count == 1 else 'keys'}:{lines}") from error


def _read_class(converter: cattrs.Converter, cls: type, value: Any, where: str, strict: bool) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise _FaultsError([("", f"must be an object, not {_kind(value)}")])
    attributes = attrs.fields(attrs.resolve_types(cls))
    found: dict[str, Any] = {}
    faults: list[tuple[str, str]] = []
    known: set[str] = set()
    for attribute in attributes:
        derive = attribute.metadata.get(_DERIVE)
        keys = attribute.metadata.get(_KEYS, (attribute.name,))
        known.update(keys)
        try:
            if derive is not None:
                found[attribute.alias] = derive(value, where)
            else:
                key = next((key for key in keys if key in value), None)
                _read_attribute(converter, attribute, keys[0] if key is None else key, value, found)
        except ConfigError as error:
            faults.append((keys[0], error.message))
        except _FaultsError as error:
            faults += error.faults
    if strict:
        faults += _unknown(value, known)
    if faults:
        raise _FaultsError(faults)
    try:
        return cls(**found)
    except ConfigError as error:
        raise _FaultsError([("", error.message)]) from error
    except (ValueError, TypeError) as error:
        raise _FaultsError([("", str(error))]) from error


def _read_attribute(
    converter: cattrs.Converter, attribute: Any, key: str, mapping: Mapping[str, Any], found: dict[str, Any]
) -> None:
    """Put the value of one attribute in ``found``, unless its default serves."""
    has_default = attribute.default is not attrs.NOTHING
    if key not in mapping or (mapping[key] is None and has_default and not _admits_none(attribute.type)):
        if not has_default:
            raise _FaultsError([(key, "is missing")])
        return
    try:
        found[attribute.alias] = converter.structure(mapping[key], attribute.type)
    except Exception as error:
        raise _FaultsError([(_join(key, path), text) for path, text in _flatten(error)]) from error


def _flatten(error: BaseException) -> list[tuple[str, str]]:
    """Faults within whatever a structuring hook raised."""
    if isinstance(error, _FaultsError):
        return error.faults
    if isinstance(error, ConfigError):
        return [("", error.message)]
    if isinstance(error, StructureHandlerNotFoundError):
        raise error  # a class of ours that cannot be read at all: a bug, not a fault of the file
    return [("", str(error) or type(error).__name__)]


def _join(key: str, path: str) -> str:
    return key if not path else f"{key}{path}" if path.startswith("[") else f"{key}.{path}"


def _unknown(mapping: Mapping[str, Any], known: set[str]) -> list[tuple[str, str]]:
    faults = []
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            faults.append((str(key), f"is not a known key{f' (did you mean {near[0]!r}?)' if near else ''}"))
    return faults


def _admits_none(kind: Any) -> bool:
    return kind is Any or kind is None or (_is_union(kind) and type(None) in typing.get_args(kind))


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _kind(value: Any) -> str:
    """A value as it is shown in an error."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


# --- how values are read ---------------------------------------------------------------------------------------------


def _read_int(value: Any, _: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _FaultsError([("", f"must be a whole number, not {_kind(value)}")])
    return value


def _read_float(value: Any, _: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise _FaultsError([("", f"must be a number, not {_kind(value)}")])
    try:
        return float(value)
    except OverflowError as error:
        raise _FaultsError([("", f"must be a number that fits, not {_kind(value)}")]) from error


def _read_bool(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise _FaultsError([("", f"must be true or false, not {_kind(value)}")])
    return value


def _read_str(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise _FaultsError([("", f"must be a text, not {_kind(value)}")])
    return value


def _read_literal(value: Any, kind: Any) -> Any:
    choices = typing.get_args(kind)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise _FaultsError([("", f"must be one of {', '.join(map(repr, choices))}, not {_kind(value)}")])
    return value


def _converter(strict: bool) -> cattrs.Converter:
    made = cattrs.Converter(detailed_validation=False)
    for kind, hook in ((int, _read_int), (float, _read_float), (bool, _read_bool), (str, _read_str)):
        made.register_structure_hook(kind, hook)

    def read_items(value: Any, kind: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _FaultsError([("", f"must be a list, not {_kind(value)}")])
        item = next((argument for argument in typing.get_args(kind) if argument is not Ellipsis), Any)
        items, faults = [], []
        for number, element in enumerate(value):
            try:
                items.append(made.structure(element, item))
            except Exception as error:
                faults += [(_join(f"[{number}]", path), text) for path, text in _flatten(error)]
        if faults:
            raise _FaultsError(faults)
        return items

    def read_map(value: Any, kind: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _FaultsError([("", f"must be an object, not {_kind(value)}")])
        _, item = typing.get_args(kind) or (str, Any)
        found, faults = {}, []
        for key, element in value.items():
            try:
                found[key] = made.structure(element, item)
            except Exception as error:
                faults += [(_join(str(key), path), text) for path, text in _flatten(error)]
        if faults:
            raise _FaultsError(faults)
        return found

    def read_union(value: Any, kind: Any) -> Any:
        members = typing.get_args(kind)
        if value is None and type(None) in members:
            return None
        causes = []
        for member in (member for member in members if member is not type(None)):
            try:
                return made.structure(value, member)
            except Exception as error:
                causes.append(_flatten(error))
        if len(causes) == 1:
            raise _FaultsError(causes[0])
        raise _FaultsError([("", " or ".join(dict.fromkeys(text for cause in causes for _, text in cause)))])

    def read_annotated(value: Any, kind: Any) -> Any:
        plain, *notes = typing.get_args(kind)
        read = made.structure(value, plain)
        for note in notes:
            if isinstance(note, AtLeast) and not note.bound <= read <= _LARGEST:
                raise _FaultsError([("", f"must be from {note.bound} to {_LARGEST}, not {_kind(read)}")])
        return read

    def origin_is(*origins: Any) -> Callable[[Any], bool]:
        return lambda kind: typing.get_origin(kind) in origins or kind in origins

    made.register_structure_hook_func(origin_is(list), read_items)
    made.register_structure_hook_func(origin_is(tuple), lambda value, kind: tuple(read_items(value, kind)))
    made.register_structure_hook_func(origin_is(dict, Mapping), read_map)
    made.register_structure_hook_func(origin_is(typing.Literal), _read_literal)
    made.register_structure_hook_func(_is_union, read_union)
    made.register_structure_hook_func(lambda kind: hasattr(kind, "__metadata__"), read_annotated)
    made.register_structure_hook_func(attrs.has, lambda value, kind: _read_class(made, kind, value, "", strict))
    return made


_TOLERANT = _converter(strict=False)
_STRICT = _converter(strict=True)
