# SPDX-License-Identifier: Apache-2.0
"""One model on several backends, by layer: more cards, or a card and the host.

Each layer's weights, cache and ops are one place's; what belongs to no layer lies at the main place, but the embedding,
which lies where the first layer is. Activations and the batch are carried along as they are needed. It computes nothing
itself, and such a model is not captured: its steps cross devices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.backends.base import Backend, IsqType, Replays, Runnable
from tramontane.build.budget import CacheLimits
from tramontane.cache.spec import CacheLayout
from tramontane.errors import CaptureRefused, PlanError
from tramontane.ops import KernelMaker, Op
from tramontane.tape.ir import Tape
from tramontane.tape.rules import Rule
from tramontane.weights import CacheSlot, Matrix, Stored

if TYPE_CHECKING:
    from tramontane.rows import Fill
    from tramontane.sampler.select import Knobs
    from tramontane.sampler.state import Path

_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


def layer_of(path: str) -> int | None:
    """The number of the layer that a module path lies in: the first number among its names."""
    found = _LAYER.search(path)
    return None if found is None else int(found[1])


@frozen(eq=False)
class Place:
    """A backend and how many layers it has, one after the other."""

    backend: Backend
    layers: int

    def describe(self) -> str:
        """One phrase for people."""
        return f"{self.layers} layers on {self.backend.device} ({self.backend.name})"


@define(eq=False)
class SpreadBackend:
    """Several backends as one. Implements :class:`~tramontane.backends.base.Backend`.

    The main place is the last one that is not the host, or the last.
    """

    places: Sequence[Place]
    embedding: str
    """Path of the token embedding."""
    name: str = field(init=False)
    _main: Backend = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        backends = [place.backend for place in self.places]
        self.name = "+".join(dict.fromkeys(backend.name for backend in backends))
        away = [backend for backend in backends if backend.device.type != "cpu"]
        self._main = (away or backends)[-1]

    @classmethod
    def probe(cls) -> str | None:
        """It is never chosen, only made."""
        return "it is made of other backends"

    @property
    def device(self) -> torch.device:
        """Where logits and sampling are."""
        return self._main.device

    @property
    def rules(self) -> tuple[Rule, ...]:
        """There is no tape to rewrite."""
        return ()

    @property
    def isq_types(self) -> Mapping[int, IsqType]:
        """Those of the main place."""
        return self._main.isq_types

    @property
    def cache_limits(self) -> CacheLimits:
        """The narrowest of all places."""
        return min((one.cache_limits for one in self.backends), key=lambda limits: limits.share)

    @property
    def backends(self) -> Sequence[Backend]:
        """One per place."""
        return [place.backend for place in self.places]

    def at(self, path: str) -> Backend:
        """The backend of a module path."""
        layer = layer_of(path)
        if layer is None:
            return self.places[0].backend if path == self.embedding else self._main
        for place in self.places:
            if layer < place.layers:
                return place.backend
            layer -= place.layers
        raise PlanError(f"{path} lies in a layer that the device map does not name")

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """As the main place does."""
        return self._main.choose_dtype(stored)

    def store(self, matrix: Matrix, dtype: torch.dtype) -> Stored:
        """As the matrix's place does."""
        return self.at(matrix.path).store(matrix, dtype)

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """Kernels of the main place; a bound op asks its own."""
        return self._main.candidates(op)

    def make_cache(self, layout: CacheLayout, slots: Sequence[CacheSlot], blocks: int) -> None:
        """Each place allocates what its own layers cache; block ids mean the same everywhere."""
        for backend, own in self._slots(slots):
            backend.make_cache(layout.only([slot.path for slot in own]), own, blocks)

    def free_memory(self) -> int:
        """What all places have left."""
        return sum(backend.free_memory() for backend in _distinct(self.backends))

    def cache_room(self, layout: CacheLayout, slots: Sequence[CacheSlot], taken: int) -> int:
        """Bytes that the cache may have in all, where each place has to hold the part of its own layers.

        Args:
            layout: The whole cache.
            slots: All layers.
            taken: Bytes that a step takes at each place.
        """
        room = []
        for backend, own in self._slots(slots):
            share = layout.only([slot.path for slot in own]).block_bytes
            if share:
                room.append(max(0, backend.free_memory() - taken) * layout.block_bytes // share)
        return min(room, default=0)

    def lower(self, tape: Tape, max_tokens: int, max_outputs: int) -> Runnable:
        """Refused."""
        raise CaptureRefused(f"the model is spread over {', '.join(place.describe() for place in self.places)}")

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        """Nothing: steps cross devices."""
        return None

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As the main place does."""
        return self._main.draw(path, logits_RV, knobs, uniform_R)

    def fill(self) -> Fill | None:
        """Nothing: no step is replayed."""
        return None

    def guard(self) -> AbstractContextManager[Any]:
        """That of the main place; ops of others choose their own device."""
        return self._main.guard()

    def peak(self, work: Callable[[], object]) -> int | None:
        """Not measured."""
        return None

    def _slots(self, slots: Sequence[CacheSlot]) -> Iterator[tuple[Backend, list[CacheSlot]]]:
        for backend in _distinct(self.backends):
            own = [slot for slot in slots if self.at(slot.path) is backend]
            if own:
                yield backend, own


def _distinct(backends: Sequence[Backend]) -> list[Backend]:
    return list({id(backend): backend for backend in backends}.values())
