# SPDX-License-Identifier: Apache-2.0
"""Reversible functions on values, for checkpoints that store something else than the model uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import evolve, field, frozen
from torch import Tensor


@frozen
class ValueMap:
    """A function on values and its inverse. Maps compare by name; they are computed in float32.

    Attributes:
        name: Unique among maps: ``plus 1``.
        apply: Stored values -> the model's.
        undo: The model's values -> stored.
    """

    name: str
    apply: Callable[[Tensor], Tensor] = field(eq=False, repr=False)
    undo: Callable[[Tensor], Tensor] = field(eq=False, repr=False)

    def inverse(self) -> ValueMap:
        """The map in the other direction."""
        name = self.name.removeprefix("not ") if self.name.startswith("not ") else f"not {self.name}"
        return evolve(self, name=name, apply=self.undo, undo=self.apply)


def plus(number: float) -> ValueMap:
    """The model uses ``stored + number`` (norm weights stored without their one)."""
    return ValueMap(f"plus {number:g}", lambda x: x + number, lambda x: x - number)


def times(number: float) -> ValueMap:
    """The model uses ``stored * number``."""
    return ValueMap(f"times {number:g}", lambda x: x * number, lambda x: x / number)


#: The model uses the logarithm of the negated stored values (state decay: ``-exp(A_log)`` is stored).
LOG_OF_NEGATIVE = ValueMap("log of negative", lambda x: torch.log(-x), lambda x: -torch.exp(x))
