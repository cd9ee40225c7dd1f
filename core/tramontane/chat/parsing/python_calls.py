# SPDX-License-Identifier: Apache-2.0
"""The notation in which a call is one of Python: ``[get_weather(city="Rome"), now()]``."""

from __future__ import annotations

import json
import re

from attrs import frozen

from tramontane.chat.parsing.python_values import python_value
from tramontane.chat.parsing.rules import Rules
from tramontane.chat.parsing.sink import MOST_CALLS, Sink
from tramontane.chat.parsing.source import Source, Steps, Stops
from tramontane.chat.parsing.syntax import LONGEST_NAME, begin, broken, is_name

_IDENTIFIER = re.compile(r"[\w.]+")


@frozen(kw_only=True)
class PythonCalls:
    """``[get_weather(city="Rome"), now()]``, the brackets optional where something else marks the calls."""

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    firsts: str = ""
    suffix: str = ""
    """What the model writes after each name (``.call``)."""
    space: str = ""
    """What it writes at both ends of calls that are in no brackets."""

    def body(self, rules: Rules) -> str:
        """Calls in brackets, or each on a line of its own."""
        calls = rules.python_calls(self.suffix)
        if self.space:
            inside = rules.join(rules.text(self.space), rules.series(calls, "\n"), rules.text(self.space))
        else:
            inside = rules.join(rules.text("["), rules.series(calls, ", "), rules.text("]"))
        return rules.join(inside, rules.text(self.closes[0]) if self.closes else "")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        return (*self.opens, *self.closes)

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        any_call = False
        in_list = (yield from source.skip_space()) == "["
        if in_list:
            source.take(1)
        elif not self.opens:
            return
        while True:
            character = yield from source.skip_space()
            if character == "]" and in_list:
                source.take(1)
                break
            if character and character in ",;" and any_call:
                source.take(1)
            elif _IDENTIFIER.match(character) and sink.calls < MOST_CALLS:
                if not (yield from self._call(source, sink)):
                    return
                any_call = True
                source.record()
            else:
                break
        if any_call:
            yield from source.skip_space()
            yield from source.starts(Stops.of(*self.closes))
            source.recorded()

    def _call(self, source: Source, sink: Sink) -> Steps[bool]:
        """Read ``name(key=value, ...)``."""
        found: list[str] = []
        yield from source.run(_IDENTIFIER, found.append)
        name = "".join(found).removesuffix(self.suffix)
        if not is_name(name) or (not self.opens and name not in sink.offered):
            return False
        if (yield from source.skip_space()) != "(":
            return False
        source.take(1)
        begin(source, sink, name)
        if (yield from self._arguments(source, sink, list(sink.offered.properties(name)))):
            sink.end()
        else:
            yield from broken(source, sink, self.closes)
        return True

    def _arguments(self, source: Source, sink: Sink, parameters: list[str]) -> Steps[bool]:
        """Read arguments to the closing bracket; ones without a name take those of the schema in order."""
        written: list[str] = []
        sink.arguments("{")
        while (yield from source.skip_space()) != ")":
            if written:
                if (yield from source.peek()) != ",":
                    return False
                source.take(1)
                if (yield from source.skip_space()) == ")":
                    break
            key = yield from self._key(source, parameters, len(written))
            if key is None:
                return False
            sink.arguments((", " if written else "") + json.dumps(key, ensure_ascii=False) + ": ")
            written.append(key)
            if not (yield from python_value(source, sink.arguments)):
                return False
        source.take(1)
        sink.arguments("}")
        return True

    def _key(self, source: Source, parameters: list[str], place: int) -> Steps[str | None]:
        """Read ``key=``, where there is one."""
        character = yield from source.peek()
        if not _IDENTIFIER.match(character) or character.isdigit():
            return parameters[place] if character and place < len(parameters) else None
        found: list[str] = []
        character = yield from source.run(_IDENTIFIER, found.append)
        if character.isspace():
            character = yield from source.skip_space()
        if character not in ("=", ":") or sum(map(len, found)) > LONGEST_NAME:
            return None
        source.take(1)
        return "".join(found)
