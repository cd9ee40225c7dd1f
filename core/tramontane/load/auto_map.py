# SPDX-License-Identifier: Apache-2.0
"""``--device-map auto``: which devices a model needs, and how many of its layers each gets.

One device, if it holds the weights and the cache of one longest sequence: there the model can be captured. Else as few
cards as hold it, each filled to the same share so that the cache is as large as can be. Else every card is filled, and
what is left lies on the host. Nothing is allocated; sizes come from the plan, so they are those of the stored types.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from attrs import evolve, frozen

from tramontane.backends.spread import layer_of
from tramontane.build import Blueprint
from tramontane.build.plan import ModelPlan
from tramontane.cache.spec import CacheLayout, LayerCache
from tramontane.checkpoint import Checkpoint
from tramontane.errors import OutOfMemoryError
from tramontane.load.budgeting import estimated_step, state_slots
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.find import choose_backend
from tramontane.load.options import LoadOptions
from tramontane.memory import available_memory, format_bytes
from tramontane.plugins import Plugins

_log = logging.getLogger(__name__)

USABLE = 0.95
"""Share of a device's free memory that is planned with: allocators leave fragments."""
RESERVE = 512 << 20
"""Bytes of a card that libraries and recorded steps take beside."""


@frozen
class Room:
    """A device and its free bytes."""

    device: str
    free: int

    @property
    def usable(self) -> int:
        """What is planned with."""
        return max(0, int(self.free * USABLE) - (RESERVE if self.device != "cpu" else 0))


@frozen
class Demand:
    """Bytes that a model needs, weights and the cache of one longest sequence.

    Attributes:
        layers: Of each layer.
        first: Of what lies with the first layer: the embedding.
        last: Of what lies at the last card: head, final norm, logits.
        step: Of a step, at every place.
        joined: Layers that have to lie where the one before does, since they read a cache from before them.
    """

    layers: Sequence[int]
    first: int = 0
    last: int = 0
    step: int = 0
    joined: frozenset[int] = frozenset()

    @property
    def total(self) -> int:
        """On one device."""
        return sum(self.layers) + self.first + self.last + self.step


def rooms(asked: str) -> list[Room]:
    """The devices that may be used under ``--device``: cards by free memory, then the host."""
    kind, _, number = asked.partition(":")
    host = Room("cpu", available_memory())
    if kind not in ("auto", "cuda"):
        return [host] if kind == "cpu" else [Room(asked, host.free)]
    numbers = [int(number)] if number else list(range(torch.cuda.device_count()))
    cards = [Room(f"cuda:{one}", torch.cuda.mem_get_info(one)[0]) for one in numbers]
    return [*sorted(cards, key=lambda room: -room.free), host]


def choose_map(demand: Demand, given: Sequence[Room]) -> list[tuple[str, int]]:
    """Devices and how many layers each has, in order. ``given``: cards, largest first, then the host.

    Raises:
        OutOfMemoryError: All of them together are too small.
    """
    cards = [room for room in given if room.device != "cpu"]
    for count in range(1, len(cards) + 1):
        found = _even(demand, cards[:count]) or _filled(demand, cards[:count])
        if found is not None:
            return found
    for hosts in (given, [room for room in given if room.device == "cpu"]):
        found = _filled(demand, hosts)
        if found is not None:
            return found
    sizes = ", ".join(f"{format_bytes(room.free)} of {room.device}" for room in given)
    raise OutOfMemoryError(
        f"the model needs {format_bytes(demand.total)} with the cache of one sequence, and there are {sizes}",
        hint="use a smaller type (--quant), a shorter --max-model-len, or fewer --max-batched-tokens",
    )


def _left(demand: Demand, room: Room, given: Sequence[Room]) -> int:
    """Bytes of a place for its layers and their cache."""
    away = [one for one in given if one.device != "cpu"] or given
    beside = demand.step + (demand.first if room is given[0] else 0) + (demand.last if room is away[-1] else 0)
    return room.usable - beside


def _even(demand: Demand, given: Sequence[Room]) -> list[tuple[str, int]] | None:
    """Every place filled to about the same share."""
    left = [max(0, _left(demand, room, given)) for room in given]
    whole, reached, layer, found = sum(demand.layers), 0.0, 0, []
    for index, room in enumerate(given):
        reached += left[index] / max(1, sum(left)) * whole
        count = 0
        while layer < len(demand.layers):
            middle = sum(demand.layers[:layer]) + demand.layers[layer] / 2
            if index < len(given) - 1 and middle > reached and layer not in demand.joined:
                break
            layer, count = layer + 1, count + 1
        found.append((room.device, count))
    return found if _fits(demand, given, found) else None


def _filled(demand: Demand, given: Sequence[Room]) -> list[tuple[str, int]] | None:
    """Every place filled as far as it goes, one after the other."""
    layer, found = 0, []
    for room in given:
        left, begun = _left(demand, room, given), layer
        while layer < len(demand.layers) and demand.layers[layer] <= left:
            left -= demand.layers[layer]
            layer += 1
        while begun < layer < len(demand.layers) and layer in demand.joined:
            layer -= 1  # it goes with the next ones
        found.append((room.device, layer - begun))
    return found if layer == len(demand.layers) and _fits(demand, given, found) else None


def _fits(demand: Demand, given: Sequence[Room], found: Sequence[tuple[str, int]]) -> bool:
    layer = 0
    for room, (_, count) in zip(given, found, strict=True):
        if sum(demand.layers[layer : layer + count]) > _left(demand, room, given):
            return False
        layer += count
    return True


def automatic(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins) -> LoadOptions:
    """The options with a device, or with a map that says which layers lie where, instead of ``auto``."""
    given = rooms(options.device)
    if options.backend != "auto":  # what it does not run on is left out; layers on the host find their own
        runs_on = plugins.catalogs.backends.get(options.backend).devices
        given = [room for room in given if room.device == "cpu" or room.device.split(":")[0] in runs_on]
    backend = choose_backend(evolve(options, device=given[0].device, device_map=None), plugins)
    made = design(checkpoint, options, plugins, backend)
    plan = plan_weights(made, checkpoint, options, plugins, backend)
    found = [(device, count) for device, count in choose_map(demand_of(made, plan, options), given) if count]
    if len(found) == 1:
        return evolve(options, device=found[0][0], device_map=None)
    text = ",".join(f"{device}={count}" for device, count in found)
    _log.info("device map: %s", text)
    return evolve(options, device_map=text)


def demand_of(made: Design, plan: ModelPlan, options: LoadOptions) -> Demand:
    """What a planned model needs."""
    layout, blueprint = made.layout, made.blueprint
    count = max((layer_of(path) or 0 for path in blueprint.caches), default=0) + 1
    layers, first, last = [0] * count, 0, 0
    parts = [(w.path, w.nbytes, w.uses) for w in plan.weights]
    parts += [(p.path, p.nbytes, frozenset[str]()) for p in plan.params]
    for path, nbytes, uses in parts:
        layer = layer_of(path)
        if layer is not None and layer < count:
            layers[layer] += nbytes
        elif "rows" in uses and "linear" not in uses:
            first += nbytes
        else:
            last += nbytes
    for path, place in layout.layers.items():
        if blueprint.caches[path].spec.share_with is None:
            layers[layer_of(path) or 0] += _cached(place, layout, made.max_model_len, state_slots(options))
    arena, logits = estimated_step(made, options, plan)
    return Demand(layers, first, last + logits, arena, _joined(blueprint))


def _cached(place: LayerCache, layout: CacheLayout, tokens: int, slots: int) -> int:
    """Bytes that one sequence, or all states, take of a layer."""
    if place.group < 0:
        return place.spec.state_bytes * slots
    window = layout.groups[place.group].window
    return place.spec.bytes_per_token * (tokens if window is None else min(tokens, window + 2 * place.block_tokens))


def _joined(blueprint: Blueprint) -> frozenset[int]:
    """Layers between one that reads another's cache and that one."""
    found: set[int] = set()
    for path, slot in blueprint.caches.items():
        if slot.spec.share_with is not None:
            ends = sorted((layer_of(path) or 0, layer_of(slot.spec.share_with) or 0))
            found.update(range(ends[0] + 1, ends[1] + 1))
    return frozenset(found)
