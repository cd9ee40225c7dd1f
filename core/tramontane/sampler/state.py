# SPDX-License-Identifier: Apache-2.0
"""What the sampler keeps about one sequence, and which path its parameters ask for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from attrs import define, field
from torch import Tensor

from tramontane.errors import RequestError
from tramontane.requests import SamplingParams
from tramontane.sampler.philox import UniformStream

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""``processor(history int64 [n], logits float32 [V]) -> logits [V]``; it may change and return the row it was given."""


class Path(Enum):
    """How a row gets its token; see :mod:`tramontane.sampler.select`."""

    GREEDY = auto()
    FULL = auto()
    TOP_K = auto()
    TOP_P = auto()

    @classmethod
    def of(cls, params: SamplingParams, vocab_size: int) -> Path:
        """The path of a row, from its own parameters alone."""
        if params.temperature == 0 or params.top_k == 1:
            return cls.GREEDY
        if 0 < params.top_k < vocab_size:
            return cls.TOP_K
        return cls.TOP_P if params.top_p < 1.0 else cls.FULL


@define(eq=False)
class SequenceState:
    """One sequence."""

    params: SamplingParams
    path: Path
    stream: UniformStream
    breakers: frozenset[int]
    processors: tuple[LogitsProcessor, ...]
    enders_E: Tensor | None
    """int64, on the device: ids that end the sequence, banned until ``params.min_tokens`` were drawn; ``None`` if there
    are none or they are allowed from the start."""
    drawn: int = 0
    row: int | None = field(default=None)
    """Row in the history; ``None`` if nothing about this sequence depends on its past."""

    @property
    def repeats(self) -> bool:
        """Whether a repetition, frequency or presence penalty is on."""
        p = self.params
        return p.repetition_penalty != 1.0 or p.frequency_penalty != 0.0 or p.presence_penalty != 0.0

    @property
    def dry(self) -> bool:
        """Whether DRY is on."""
        return self.params.dry_multiplier > 0.0

    @property
    def needs_history(self) -> bool:
        """Whether the next token depends on earlier ones other than through the model."""
        return self.repeats or self.dry or bool(self.processors)

    @property
    def banning(self) -> bool:
        """Whether EOS and stop ids may not be drawn yet."""
        return self.enders_E is not None and self.drawn < self.params.min_tokens


def check_ids(name: str, ids: Collection[int] | Sequence[int], vocab_size: int) -> None:
    """Refuse ids outside the vocabulary.

    Raises:
        RequestError: Names the first of them.
    """
    wrong = [token for token in ids if not 0 <= token < vocab_size]
    if wrong:
        raise RequestError(f"{name} holds token id {wrong[0]}; the vocabulary has ids 0 to {vocab_size - 1}")
