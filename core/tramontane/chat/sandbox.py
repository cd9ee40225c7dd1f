# SPDX-License-Identifier: Apache-2.0
"""The Jinja environment of chat templates: an immutable sandbox with a budget.

It behaves as the environment of ``transformers`` does (trimmed blocks, loop controls, ``{% generation %}``, ``tojson``,
``raise_exception``, ``strftime_now``), so that templates written for it render the same text. On top of Jinja's sandbox
it allows filters and methods by name and puts everything through the :mod:`meter <tramontane.chat.meter>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace, pass_context

from tramontane.chat import guards
from tramontane.chat.errors import TemplateLimitError, TemplateRefusedError
from tramontane.chat.meter import current
from tramontane.chat.rewrite import meter_filters, rewrite

_OPERATORS: Mapping[str, Callable[..., None]] = {
    "+": guards.plus,
    "-": guards.plain_number,
    "*": guards.times,
    "/": guards.plain_number,
    "//": guards.plain_number,
    "%": guards.percent,
    "**": guards.power,
}

_LONGEST_DATE_FORMAT = 256


class GenerationTag(Extension):
    """``{% generation %} ... {% endgeneration %}``: what the assistant said, marked for training; here only text."""

    tags = {"generation"}  # noqa: RUF012 - the name Jinja reads

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The tag's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateNamespace(Namespace):
    """``namespace(...)``, which does not hold private names and does not print its contents."""

    # `self` may be one of the template's own names.
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class TemplateDict:
    """``dict(...)`` without the type behind it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A new dict."""
        made = dict(*args, **kwargs)
        current.get().count(current.get().weigh(made))
        return made

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        """A dict with the same value for all keys."""
        made = dict.fromkeys(keys, value)
        current.get().count(current.get().weigh(made))
        return made


class BoundedFormatter(SandboxedFormatter):
    """``str.format`` with bounded widths."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Format one field."""
        if any(len(digits) > 4 for digits in "".join(c if c.isdigit() else " " for c in format_spec).split()):
            raise TemplateLimitError("the chat template formats with too large a width")
        current.get().text(current.get().weigh(value) + 10_000)
        return super().format_field(value, format_spec)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates."""

    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self, clock: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants are computed in a rendering, under its meter
            extensions=[GenerationTag, loopcontrols],
            finalize=_finalize,
        )
        for ours, table in ((_filters(), self.filters), (guards.metered_tests(), self.tests)):
            table.clear()
            table.update(ours)
        safe_range = self.globals["range"]
        self.globals.clear()
        self.globals.update(
            range=safe_range,
            dict=TemplateDict(),
            namespace=TemplateNamespace,
            raise_exception=_raise_exception,
            strftime_now=_strftime(clock),
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return rewrite(super()._parse(source, name, filename))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As the immutable sandbox, but lists may be used as queues: all data is the rendering's own copy."""
        return (type(obj) is list and attr in ("append", "pop")) or super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Reaching for a private attribute is an error at once; Jinja would print nothing."""
        if attribute.startswith("_"):
            raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__} is unsafe")
        return super().unsafe_undefined(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, after the meter."""
        _OPERATORS[operator](current.get(), left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call, after the meter; methods of values by name."""
        meter = current.get()
        meter.step()
        if isinstance(__obj, BuiltinMethodType | MethodType) and not isinstance(__obj.__self__, _CALLABLE_OWNERS):
            owner, name = __obj.__self__, __obj.__name__
            if isinstance(owner, str) and name == "join" and len(args) == 1:
                args = (guards.joined(args[0], owner),)
            else:
                guards.check_method(meter, owner, name, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` and ``str.format_map`` as functions that stay in the sandbox and in their widths."""
        if not isinstance(value, BuiltinMethodType | MethodType) or value.__name__ not in ("format", "format_map"):
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None
        takes_mapping = value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> str:
            if takes_mapping:
                if kwargs or len(args) != 1:
                    raise TypeError("format_map() takes exactly one argument")
                kwargs, args = dict(args[0]), ()
            guards.check_method(current.get(), str(text), "format", args, kwargs)
            return BoundedFormatter(self).vformat(str(text), args, kwargs)

        return formatted


_CALLABLE_OWNERS = (TemplateDict, jinja2.runtime.LoopContext)


def _filters() -> dict[str, Any]:
    return {**guards.metered_filters(), **meter_filters()}


@pass_context
def _finalize(_context: Context, value: Any) -> Any:
    """What ``{{ value }}`` writes. (Taking the context keeps Jinja from doing it at compile time.)"""
    meter = current.get()
    if isinstance(value, str):
        meter.text(len(value))
        return value
    meter.text(meter.weigh(value))
    text = str(value)
    if not isinstance(value, Undefined):
        meter.text(len(text))
    return text


def _raise_exception(message: Any = "") -> NoReturn:
    raise TemplateRefusedError(str(message))


def _strftime(clock: Callable[[], datetime]) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:  # noqa: A002 - the name templates may use
        if len(format) > _LONGEST_DATE_FORMAT or any(c.isdigit() for c in format.replace("%%", "")):
            raise TemplateLimitError("the chat template asks for an unusual date format")
        return clock().strftime(format)

    return strftime_now


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"chat templates may not store the private name {name!r}")
