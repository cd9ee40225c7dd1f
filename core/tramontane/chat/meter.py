# SPDX-License-Identifier: Apache-2.0
"""The budget of one rendering: time, steps, characters, and the size of what a template builds.

A chat template is code of unknown origin. The sandbox decides what it may touch; the meter, how much of it. Everything
a template can repeat or enlarge passes through the meter *before* it happens (see :mod:`tramontane.chat.rewrite` and
:mod:`tramontane.chat.guards`), so that no single operation can run long or allocate much, and between operations the
clock is read often. Hence a rendering can be stopped in the thread it runs in.
"""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from typing import Any

from attrs import frozen

from tramontane.chat.errors import TemplateLimitError

_STEP_COST = 64
_CONTAINERS = (dict, list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


@frozen
class RenderLimits:
    """How much a rendering may take."""

    seconds: float = 5.0
    output: int = 16_000_000
    """Characters of the result, and of any text on the way."""
    produced: int = 64_000_000
    """Characters of all texts on the way together, with something for each text, list and item; 64 for each character
    of input come on top."""
    steps: int = 10_000_000
    """Loop rounds, calls, filters and operators."""
    nodes: int = 1_000_000
    """Values in one nested structure, counted as often as they are reachable."""
    depth: int = 100
    """Levels of one nested structure."""
    whole_number_bits: int = 4096
    source: int = 256_000
    """Characters of a template (the largest in use have about 17,000); bounds what compiling it may take."""


class Meter:
    """Counts one rendering's work and stops it at its limits.

    Every method raises :class:`TemplateLimitError` when a limit is passed.
    """

    def __init__(self, limits: RenderLimits, input_size: int) -> None:
        self.limits = limits
        self._steps = limits.steps
        self._produced = limits.produced + 64 * input_size
        self._deadline = time.monotonic() + limits.seconds
        self._until_clock = 0

    def step(self, cost: int = 1) -> None:
        """One more step, which handles about ``cost`` characters or values."""
        self._steps -= 1
        self._until_clock -= _STEP_COST + cost
        if self._until_clock < 0:
            self._until_clock = 16 * _STEP_COST
            if time.monotonic() > self._deadline:
                raise TemplateLimitError(f"the chat template ran longer than {self.limits.seconds:g} s")
            if self._steps < 0:
                raise TemplateLimitError(f"the chat template took more than {self.limits.steps} steps")

    def text(self, size: int) -> None:
        """A text of this many characters is about to be made."""
        if size > self.limits.output:
            raise TemplateLimitError(f"the chat template made a text of more than {self.limits.output} characters")
        self._produce(16 + size)
        self.step(size >> 4)

    def number(self, *numbers: int, grown: int = 0) -> None:
        """Arithmetic on whole numbers; its result has ``grown`` bits more than the largest of them."""
        if max(map(int.bit_length, numbers)) + grown > self.limits.whole_number_bits:
            raise TemplateLimitError("the chat template made too large a number")
        self.step()

    def count(self, size: int) -> None:
        """A list, tuple or mapping of this many items is about to be made."""
        self.items(size)
        self._produce(64 + 16 * size)
        self.step(size)

    def items(self, size: int) -> None:
        """A list has come to this many items."""
        if size > self.limits.nodes:
            raise TemplateLimitError(f"the chat template made a list of more than {self.limits.nodes} items")

    def _produce(self, size: int) -> None:
        self._produced -= size
        if self._produced < 0:
            raise TemplateLimitError("the chat template produced too much data")

    def width(self, *values: Any) -> None:
        """Numbers given to something that repeats or pads."""
        for value in values:
            if isinstance(value, int) and abs(value) > 100_000:
                raise TemplateLimitError(f"the chat template asked for a width or count of {value:.6g}")

    def weigh(self, value: Any) -> int:
        """Characters and values reachable in plain data, a shared value as often as it is reachable.

        Small nested lists that share their parts can stand for billions of values; whatever prints, compares or
        serializes them would never end.
        """
        if isinstance(value, str | bytes):
            return len(value)
        nodes, characters, _ = self.shape(value)
        return nodes + characters

    def shape(self, value: Any) -> tuple[int, int, int]:
        """The same as (values, characters, levels)."""
        if not isinstance(value, _CONTAINERS):
            return 1, len(value) if isinstance(value, str | bytes) else 0, 0
        nodes, characters, level, depth = 0, 0, [value], 0
        while level:
            depth += 1
            if depth > self.limits.depth:
                raise TemplateLimitError(f"the chat template nests data more than {self.limits.depth} levels deep")
            following: list[Any] = []
            for container in level:
                nodes += 1 + len(container)
                if nodes > self.limits.nodes:
                    raise TemplateLimitError(
                        f"the chat template handles a structure of more than {self.limits.nodes} values"
                    )
                for item in _parts(container):
                    if isinstance(item, str | bytes):
                        characters += len(item)
                    elif isinstance(item, _CONTAINERS):
                        following.append(item)
            level = following
        self.step(nodes)
        return nodes, characters, depth


def _parts(container: Any) -> Iterable[Any]:
    """What a container holds; keys and values of a mapping."""
    if isinstance(container, Mapping):
        return [*container.keys(), *container.values()]
    return container  # type: ignore[no-any-return]


current: ContextVar[Meter] = ContextVar("tramontane_template_meter")
"""The meter of the rendering that runs in this context."""
