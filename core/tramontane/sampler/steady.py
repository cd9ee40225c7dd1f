# SPDX-License-Identifier: Apache-2.0
"""Draws that a replayed step can hold: rows whose token depends on their logits and numbers alone.

Parameters and random numbers lie at fixed addresses and are written before each step; what is drawn is the same as
:class:`~tramontane.sampler.Sampler` draws row by row, since the same function draws it. Rows with penalties, biases,
grammars, processors or log-probabilities are not for here.

Shapes: L rows of the step, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane.ring import HostRing
from tramontane.sampler.drawing import Draw, draw_rows
from tramontane.sampler.plan import Plan
from tramontane.sampler.select import Knobs, Part, wide
from tramontane.sampler.state import Path


@frozen
class Recipe:
    """What kind of draws a step makes: steps of one recipe are the same work on other numbers."""

    paths: frozenset[Path]
    """That rows may take."""
    most_k: int
    """At least the largest top-k, a power of two; 0 without one."""


@define(eq=False)
class SteadyDraw:
    """Parameters of up to ``rows`` rows, and their draws."""

    rows: int
    vocab_size: int
    device: torch.device
    _draw: Draw = draw_rows
    _any: bool = False
    """Whether one recipe is to serve all steps with rows that are not greedy."""
    _host: HostRing = field(init=False, repr=False)
    _columns: dict[str, Tensor] = field(init=False, repr=False)
    _block: Tensor = field(init=False, repr=False)
    _kept: list[Plan | None] = field(init=False, repr=False)
    """Per host block, the plan whose parameters it holds."""

    def __attrs_post_init__(self) -> None:
        size = sum(self.rows * dtype.itemsize for _, dtype in self._layout())
        self._host = HostRing(size, self.device)
        self._block = (
            self._host.block if self.device.type == "cpu" else torch.zeros_like(self._host.block, device=self.device)
        )
        self._columns = self._views(self._block)
        self._kept = [None] * len(self._host.blocks)

    def load(self, plan: Plan, positions: Sequence[int]) -> Recipe:
        """Write the numbers of a step's rows and send them to the device; greedy rows have none."""
        if plan.path is Path.GREEDY:
            return Recipe(frozenset({Path.GREEDY}), 0)
        turn, count = self._host.next(), len(plan.states)
        columns = self._views(self._host.block)
        if self._kept[turn] is not plan:
            self._write_parameters(columns, plan)
            self._kept[turn] = plan
        columns["uniform"][:count] = torch.tensor(plan.numbers(positions), dtype=wide(self.device))
        if self._block is not self._host.block:
            self._block.copy_(self._host.block, non_blocking=True)
            self._host.sent()
        if self._any:
            return Recipe(frozenset(Path), self.vocab_size)
        paths = frozenset(state.path for state in plan.states)
        most_k = max((s.params.top_k for s in plan.states if s.path is Path.TOP_K), default=0)
        return Recipe(paths, min(self.vocab_size, 1 << (most_k - 1).bit_length()) if most_k else 0)

    def draw(self, logits_LV: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Tokens int64 [L] and each row's largest logit [L]; reads nothing but tensors at fixed addresses."""
        logits_LV = logits_LV[:, : self.vocab_size]
        if recipe.paths == {Path.GREEDY}:
            return self._draw(Path.GREEDY, logits_LV, None, None)
        count = logits_LV.shape[0]
        column = {name: one[:count] for name, one in self._columns.items()}
        knobs = Knobs(
            temperature_R=column["temperature"], top_k_R=column["top_k"], top_p_R=column["top_p"],
            min_p_R=column["min_p"], most_k=recipe.most_k, any_min_p=True,
        )  # fmt: skip
        paths = sorted(recipe.paths, key=lambda path: path.value)
        if len(paths) == 1:
            return self._draw(paths[0], logits_LV, knobs, column["uniform"])
        parts = [Part(path, None, None if path is Path.GREEDY else knobs) for path in paths]
        return self._draw(None, logits_LV, evolve(knobs, path_R=column["path"], parts=parts), column["uniform"])

    def _write_parameters(self, columns: Mapping[str, Tensor], plan: Plan) -> None:
        params, count = [state.params for state in plan.states], len(plan.states)
        values: dict[str, list[float]] = {
            "temperature": [p.temperature for p in params],
            "top_p": [p.top_p for p in params],
            "min_p": [p.min_p for p in params],
            "top_k": [min(p.top_k, self.vocab_size) for p in params],
            "path": [state.path.value for state in plan.states],
        }
        for name, numbers in values.items():
            columns[name][:count] = torch.tensor(numbers, dtype=columns[name].dtype)
            columns[name][count:] = 1  # rows of padding draw like anyone, and nobody reads it

    def _layout(self) -> list[tuple[str, torch.dtype]]:
        """Columns, the widest types first, so that each begins aligned."""
        real = wide(self.device)
        wholes = [("top_k", torch.int64), ("path", torch.int64)]
        return [*wholes, ("uniform", real), ("top_p", real), ("min_p", real), ("temperature", torch.float32)]

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        views, offset = {}, 0
        for name, dtype in self._layout():
            end = offset + self.rows * dtype.itemsize
            views[name], offset = block[offset:end].view(dtype), end
        return views
