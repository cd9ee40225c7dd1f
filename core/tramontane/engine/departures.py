# SPDX-License-Identifier: Apache-2.0
"""Adapters that were unloaded while requests use them: each is freed when the last of these has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from tramontane.requests import EngineRequest


@define(eq=False)
class Departures:
    """What is to be freed, by the adapter's generation."""

    _waiting: dict[int, Callable[[], None]] = field(factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, generation: int, free: Callable[[], None]) -> None:
        """Call ``free`` as soon as nothing uses that generation."""
        self._waiting[generation] = free

    def settle(self, requests: Iterable[EngineRequest]) -> None:
        """Free what none of the requests, all there are, uses."""
        used = {request.adapter.generation for request in requests if request.adapter is not None}
        for generation in [one for one in self._waiting if one not in used]:
            self._waiting.pop(generation)()
