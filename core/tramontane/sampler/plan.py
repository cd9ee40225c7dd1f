# SPDX-License-Identifier: Apache-2.0
"""The parameters of a step's rows as tensors on the device.

Made when the rows change and kept while they stay the same, which is what a run of decode steps looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from attrs import evolve, frozen
from torch import Tensor

from tramontane.ring import on_device
from tramontane.sampler.penalties import Dry, Repeats
from tramontane.sampler.select import Knobs, Part, wide
from tramontane.sampler.state import Path, SequenceState

T = TypeVar("T", int, float)


@frozen
class Biases:
    """Logit biases of all rows, one entry a (row, token)."""

    rows_N: Tensor
    tokens_N: Tensor
    values_N: Tensor


@frozen
class Chosen:
    """Some of the step's rows, with their rows in the history."""

    rows: list[int]
    rows_R: Tensor
    history: list[int]
    history_R: Tensor


@frozen
class Plan:
    """Everything about a step's rows that stays the same from step to step."""

    states: list[SequenceState]
    device: torch.device
    vocab_size: int
    biases: Biases | None
    remembering: Chosen | None
    """Rows with a history; drawn tokens are appended to it."""
    repeating: Chosen | None
    repeats: Repeats | None
    drying: Chosen | None
    dry: Dry | None
    processing: list[int]
    """Rows with logits processors."""
    waiting: bool
    """Some row asks for a least number of tokens."""
    observing: list[int]
    """Rows that want log-probabilities."""
    observing_R: Tensor | None

    @cached_property
    def path(self) -> Path | None:
        """What all rows take; ``None`` if they take several."""
        paths = {state.path for state in self.states}
        return paths.pop() if len(paths) == 1 else None

    @cached_property
    def knobs(self) -> Knobs | None:
        """The parameters of the draws, on the device; ``None`` if all rows are greedy. Made when first asked for: a
        step that is replayed keeps its own."""
        return None if self.path is Path.GREEDY else _Maker(self.states, self.device, self.vocab_size).knobs()

    def numbers(self, positions: Sequence[int]) -> list[float]:
        """The random number of each row; 0 for greedy ones."""
        return [
            0.0 if state.path is Path.GREEDY else state.stream.at(position)
            for state, position in zip(self.states, positions, strict=True)
        ]

    @property
    def plain(self) -> bool:
        """Every row's token depends on its logits and its random number alone."""
        return not (self.changing or self.processing or self.waiting or self.observing)

    @property
    def changing(self) -> bool:
        """Whether any row's logits are changed before grammar and temperature."""
        return self.biases is not None or self.remembering is not None

    @classmethod
    def of(cls, states: Sequence[SequenceState], device: torch.device, vocab_size: int) -> Plan:
        """The plan of a step's rows."""
        make = _Maker(states, device, vocab_size)
        repeating = make.chosen(lambda s: s.repeats)
        drying = make.chosen(lambda s: s.dry)
        observing = [row for row, state in enumerate(states) if state.params.logprobs is not None]
        return cls(
            states=list(states),
            device=device,
            vocab_size=vocab_size,
            biases=make.biases(),
            remembering=make.chosen(lambda s: s.row is not None),
            repeating=repeating,
            repeats=make.repeats(repeating) if repeating else None,
            drying=drying,
            dry=make.dry(drying) if drying else None,
            processing=[row for row, state in enumerate(states) if state.processors],
            waiting=any(state.enders_E is not None for state in states),
            observing=observing,
            observing_R=make.tensor(observing, torch.int64) if observing else None,
        )


class _Maker:
    """Turns columns of states into tensors."""

    def __init__(self, states: Sequence[SequenceState], device: torch.device, vocab_size: int) -> None:
        self.states = states
        self.device = device
        self.vocab_size = vocab_size

    def tensor(self, values: Sequence[T], dtype: torch.dtype) -> Tensor:
        return on_device(torch.tensor(values, dtype=dtype), self.device)

    def column(self, chosen: Chosen, value: Callable[[SequenceState], float], dtype: torch.dtype) -> Tensor:
        return self.tensor([value(self.states[row]) for row in chosen.rows], dtype)[:, None]

    def chosen(self, wanted: Callable[[SequenceState], bool]) -> Chosen | None:
        rows, history = [], []
        for row, state in enumerate(self.states):
            if state.row is not None and wanted(state):
                rows.append(row)
                history.append(state.row)
        if not rows:
            return None
        return Chosen(rows, self.tensor(rows, torch.int64), history, self.tensor(history, torch.int64))

    def knobs(self) -> Knobs:
        by_path: dict[Path, list[int]] = {}
        for row, state in enumerate(self.states):
            by_path.setdefault(state.path, []).append(row)
        whole = self._columns(range(len(self.states)))
        if len(by_path) == 1:
            return whole
        parts = [
            Part(path, self.tensor(rows, torch.int64), None if path is Path.GREEDY else self._columns(rows))
            for path, rows in by_path.items()
        ]
        return evolve(whole, path_R=self.tensor([s.path.value for s in self.states], torch.int64), parts=parts)

    def _columns(self, rows: Sequence[int]) -> Knobs:
        params = [self.states[row].params for row in rows]
        top_k = [min(p.top_k, self.vocab_size) for p in params]
        return Knobs(
            temperature_R=self.tensor([p.temperature for p in params], torch.float32),
            top_k_R=self.tensor(top_k, torch.int64),
            top_p_R=self.tensor([p.top_p for p in params], wide(self.device)),
            min_p_R=self.tensor([p.min_p for p in params], wide(self.device)),
            most_k=max(top_k, default=0),
            any_min_p=any(p.min_p > 0 for p in params),
        )

    def biases(self) -> Biases | None:
        entries = [(row, *entry) for row, state in enumerate(self.states) for entry in state.params.logit_bias]
        if not entries:
            return None
        rows, tokens, values = zip(*entries, strict=True)
        return Biases(
            self.tensor(rows, torch.int64), self.tensor(tokens, torch.int64), self.tensor(values, torch.float32)
        )

    def repeats(self, chosen: Chosen) -> Repeats:
        return Repeats(
            self.column(chosen, lambda s: s.params.repetition_penalty, torch.float32),
            self.column(chosen, lambda s: s.params.frequency_penalty, torch.float32),
            self.column(chosen, lambda s: s.params.presence_penalty, torch.float32),
        )

    def dry(self, chosen: Chosen) -> Dry:
        tables: dict[frozenset[int], int] = {}
        for row in chosen.rows:
            tables.setdefault(self.states[row].breakers, len(tables))
        breakers_BV = torch.zeros(len(tables), self.vocab_size, dtype=torch.bool)
        for breakers, table in tables.items():
            breakers_BV[table, sorted(breakers)] = True
        return Dry(
            self.column(chosen, lambda s: s.params.dry_multiplier, torch.float32),
            self.column(chosen, lambda s: s.params.dry_base, torch.float32),
            self.column(chosen, lambda s: s.params.dry_allowed_length, torch.int64),
            on_device(breakers_BV, self.device),
            self.column(chosen, lambda s: tables[s.breakers], torch.int64),
        )
