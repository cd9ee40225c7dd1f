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
from functools import cache
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


def complete_config(parsed: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of the architecture's own reading of it."""
    plain = (int, float, str, bool)
    read = {one.name: getattr(parsed, one.name) for one in attrs.fields(type(parsed))}
    defaults = {key: value for key, value in read.items() if isinstance(value, plain)}
    return {**defaults, **{key: value for key, value in config.items() if value is not None}}


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
    reader = _STRICT if strict else _TOLERANT
    try:
        return cast(T, reader.read_class(cls, mapping, where))
    except _FaultsError as error:
        lines = "".join(f"\n  {path or 'the whole'}: {text}" for path, text in error.faults)
        count = len(error.faults)
        raise ConfigError(f"{where} has {count} unusable {'key' if count == 1 else 'keys'}:{lines}") from error


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
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _FaultsError([("", f"must be a number, not {_kind(value)}")])
    try:
        number = float(value)
    except OverflowError as error:
        raise _FaultsError([("", f"must be a number that fits, not {_kind(value)}")]) from error
    if math.isnan(number):
        raise _FaultsError([("", "must be a number, not NaN")])
    return number


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


def _origin_is(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: typing.get_origin(kind) in origins or kind in origins


class _Reader:
    """The hooks that read values inside values, over one cattrs converter."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.converter = made = cattrs.Converter(detailed_validation=False)
        for kind, hook in ((int, _read_int), (float, _read_float), (bool, _read_bool), (str, _read_str)):
            made.register_structure_hook(kind, hook)
        made.register_structure_hook_func(_origin_is(list), self.read_items)
        made.register_structure_hook_func(_origin_is(tuple), lambda value, kind: tuple(self.read_items(value, kind)))
        made.register_structure_hook_func(_origin_is(dict, Mapping), self.read_map)
        made.register_structure_hook_func(_origin_is(typing.Literal), _read_literal)
        made.register_structure_hook_func(_is_union, self.read_union)
        made.register_structure_hook_func(lambda kind: hasattr(kind, "__metadata__"), self.read_annotated)
        made.register_structure_hook_func(attrs.has, lambda value, kind: self.read_class(kind, value, ""))

    def read(self, value: Any, kind: Any) -> Any:
        """Any value as any type."""
        return self.converter.structure(value, kind)

    def read_items(self, value: Any, kind: Any) -> list[Any]:
        """Items of a list; every faulty one is reported."""
        if not isinstance(value, list | tuple):
            raise _FaultsError([("", f"must be a list, not {_kind(value)}")])
        item = next((argument for argument in typing.get_args(kind) if argument is not Ellipsis), Any)
        return list(self._each({f"[{number}]": element for number, element in enumerate(value)}, item).values())

    def read_map(self, value: Any, kind: Any) -> dict[str, Any]:
        """Values of an object; every faulty one is reported."""
        if not isinstance(value, Mapping):
            raise _FaultsError([("", f"must be an object, not {_kind(value)}")])
        _, item = typing.get_args(kind) or (str, Any)
        return self._each(value, item)

    def _each(self, values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
        found, faults = {}, []
        for key, element in values.items():
            try:
                found[key] = self.read(element, kind)
            except Exception as error:
                faults += [(_join(str(key), path), text) for path, text in _flatten(error)]
        if faults:
            raise _FaultsError(faults)
        return found

    def read_union(self, value: Any, kind: Any) -> Any:
        """The first member that takes the value."""
        members = typing.get_args(kind)
        if value is None and type(None) in members:
            return None
        causes = []
        for member in (member for member in members if member is not type(None)):
            try:
                return self.read(value, member)
            except Exception as error:
                causes.append(_flatten(error))
        if len(causes) == 1:
            raise _FaultsError(causes[0])
        raise _FaultsError([("", " or ".join(dict.fromkeys(text for cause in causes for _, text in cause)))])

    def read_annotated(self, value: Any, kind: Any) -> Any:
        """The plain type, then the bounds."""
        plain, *notes = typing.get_args(kind)
        found = self.read(value, plain)
        for note in notes:
            if isinstance(note, AtLeast) and not note.bound <= found <= _LARGEST:
                raise _FaultsError([("", f"must be from {note.bound} to {_LARGEST}, not {_kind(found)}")])
        return found

    def read_class(self, cls: type, value: Any, where: str) -> Any:
        """An attrs class from a mapping; every faulty key is reported."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise _FaultsError([("", f"must be an object, not {_kind(value)}")])
        found: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        fields = _fields(cls)
        for one in fields:
            try:
                self.read_field(one, value, where, found)
            except _FaultsError as error:
                faults += error.faults
        if self.strict:
            faults += _unknown(value, {key for one in fields for key in one.keys})
        if faults:
            raise _FaultsError(faults)
        try:
            return cls(**found)
        except ConfigError as error:
            raise _FaultsError([("", error.message)]) from error
        except (ValueError, TypeError) as error:
            raise _FaultsError([("", str(error))]) from error

    def read_field(self, field: _Field, mapping: Mapping[str, Any], where: str, found: dict[str, Any]) -> None:
        """Put the value of one field in ``found``, unless its default serves."""
        if field.derive is not None:
            found[field.alias] = _derive(field.derive, field.keys[0], mapping, where)
            return
        key = next((key for key in field.keys if key in mapping), None)
        if key is None or (mapping[key] is None and field.null_is_absent):
            if not field.has_default:
                raise _FaultsError([(field.keys[0], "is missing")])
            return
        try:
            found[field.alias] = self.read(mapping[key], field.kind)
        except Exception as error:
            raise _FaultsError([(_join(key, path), text) for path, text in _flatten(error)]) from error


@frozen
class _Field:
    """What is read into one attribute of a class."""

    alias: str
    keys: tuple[str, ...]
    kind: Any
    derive: Callable[[Mapping[str, Any], str], Any] | None
    has_default: bool
    null_is_absent: bool


@cache
def _fields(cls: type) -> tuple[_Field, ...]:
    """The fields of an attrs class: found once, for servers read a class with every request."""
    made = []
    for one in attrs.fields(attrs.resolve_types(cls)):
        keys, has_default = one.metadata.get(_KEYS, (one.name,)), one.default is not attrs.NOTHING
        null_is_absent = has_default and not _admits_none(one.type)
        made.append(_Field(one.alias, keys, one.type, one.metadata.get(_DERIVE), has_default, null_is_absent))
    return tuple(made)


def _derive(read: Callable[..., Any], name: str, mapping: Mapping[str, Any], where: str) -> Any:
    try:
        return read(mapping, where)
    except ConfigError as error:
        raise _FaultsError([(name, error.message)]) from error
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:  # computed from a wrong value
        raise _FaultsError([(name, f"cannot be computed: {error}")]) from error


_TOLERANT = _Reader(strict=False)
_STRICT = _Reader(strict=True)
