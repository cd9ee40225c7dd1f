# SPDX-License-Identifier: Apache-2.0
"""Device maps: which layers of a model lie on which device.

A map is ``DEVICE=LAYERS`` parts separated by commas, in the order of the layers: ``cuda:0=16,cuda:1=rest``. A device
may name its backend too: ``cuda/torch=24,cpu=rest``. Lines of a topology that put layers on devices amount to a map,
and ``auto`` is one that :mod:`tramontane.load.auto_map` makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from tramontane.backends.base import Backend
from tramontane.backends.spread import Place, SpreadBackend, layer_of
from tramontane.build import Blueprint
from tramontane.config import text_config
from tramontane.errors import ConfigError, PlanError
from tramontane.load.find import choose_backend
from tramontane.load.options import LoadOptions
from tramontane.ops import BoundOp, Runtime
from tramontane.plugins import Plugins
from tramontane.quantization import read_topology
from tramontane.weights import CacheSlot, Constant, Matrix, Param

AUTO, REST = "auto", "rest"
_PART = re.compile(r"([a-z]+(?::\d+)?)(?:/(\w+))?=(\d+|rest)")


@frozen
class Asked:
    """One part of a device map."""

    device: str
    backend: str
    layers: int | None
    """``None`` for all that are left."""


def parse_map(text: str) -> tuple[Asked, ...]:
    """Read a device map.

    Raises:
        ConfigError: It is not of that form, or names the rest twice.
    """
    parts = []
    for part in text.replace(";", ",").split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ConfigError(
                f"the device map {text!r} has a part {part.strip()!r} that is not DEVICE=LAYERS",
                hint="such as cuda:0=16,cuda:1=rest or cuda=24,cpu=rest",
            )
        parts.append(Asked(match[1], match[2] or "auto", None if match[3] == REST else int(match[3])))
    if sum(part.layers is None for part in parts) > 1:
        raise ConfigError(f"the device map {text!r} gives the rest of the layers to two devices")
    return tuple(parts)


def placed(options: LoadOptions, config: Mapping[str, Any], plugins: Plugins) -> LoadOptions:
    """The options with the device, or the device map, that a topology's lines about layers amount to.

    A map that was given wins; lines that contradict it are refused while quantization is planned, as patterns are that
    would take a matrix out of its layer.

    Raises:
        ConfigError: A line names layers that the model has not.
    """
    if options.topology is None or options.device_map is not None:
        return options
    topology = read_topology(Path(options.topology))
    named = [rule for rule in topology.rules if rule.device is not None and rule.layers is not None]
    if not named:
        return options
    layers = text_config(config).get("num_hidden_layers")
    for rule in named:
        if rule.layers is not None and isinstance(layers, int) and rule.layers.stop > layers:
            raise ConfigError(f"the topology {topology.source}, key {rule.key!r}: the model has {layers} layers")
    if not isinstance(layers, int):
        raise ConfigError(f"the topology {topology.source} places layers, and the model does not say how many it has")
    usual = str(choose_backend(options, plugins).device)
    devices = [topology.device_of_layer(number) or usual for number in range(layers)]
    if set(devices) == {usual}:
        return options
    parts = ((device, len(list(run))) for device, run in groupby(devices))
    return evolve(options, device_map=",".join(f"{device}={count}" for device, count in parts))


def main_place(options: LoadOptions) -> LoadOptions:
    """The options with device and backend of the place where what belongs to no layer lies."""
    if options.device_map in (None, AUTO):
        return options
    parts = parse_map(options.device_map or "")
    main = ([part for part in parts if part.device != "cpu"] or list(parts))[-1]
    return evolve(options, device=main.device, backend=main.backend if main.backend != "auto" else options.backend)


def count_layers(parts: tuple[Asked, ...], layers: int) -> list[int]:
    """How many layers each part has of a model with so many.

    Raises:
        ConfigError: The numbers do not add up.
    """
    named = sum(part.layers or 0 for part in parts)
    counts = [max(0, layers - named) if part.layers is None else part.layers for part in parts]
    if sum(counts) != layers:
        raise ConfigError(
            f"the device map names {named} layers, and the model has {layers}", hint="write rest for what is left"
        )
    return counts


def spread(blueprint: Blueprint, options: LoadOptions, plugins: Plugins) -> SpreadBackend:
    """The backends of a device map, as one.

    Raises:
        ConfigError: The map is wrong, or does not fit the model.
        PlanError: There is no such device or backend, or layers of different places share a cache.
    """
    parts = parse_map(options.device_map or "")
    numbers = [number for path in blueprint.caches if (number := layer_of(path)) is not None]
    counts = count_layers(parts, max(numbers, default=-1) + 1)
    made: dict[tuple[str, str], Backend] = {}
    places = []
    for part, count in zip(parts, counts, strict=True):
        key = (part.device, part.backend)
        if key not in made:
            asked = evolve(options, device=part.device, backend=_backend_of(part, options, plugins))
            made[key] = choose_backend(asked, plugins)
        places.append(Place(made[key], count))
    embedding = next((path for path, matrix in blueprint.matrices.items() if "rows" in matrix.uses), "")
    if embedding and "linear" in blueprint.matrices[embedding].uses:
        embedding = ""  # a tied one is the head's too, and lies where that is
    found = SpreadBackend(places, embedding)
    _check_shared(blueprint, found)
    return found


def _backend_of(part: Asked, options: LoadOptions, plugins: Plugins) -> str:
    """The backend of a part: its own, or the one that the options name if it runs on such a device."""
    if part.backend != "auto" or options.backend == "auto":
        return part.backend
    runs_on = plugins.catalogs.backends.get(options.backend).devices
    return options.backend if part.device.split(":")[0] in runs_on else "auto"


def _check_shared(blueprint: Blueprint, backend: SpreadBackend) -> None:
    for slot in blueprint.caches.values():
        other = slot.spec.share_with
        if other is not None and backend.at(other) is not backend.at(slot.path):
            raise PlanError(f"{slot.path} reads the cache of {other}, which the device map puts at another place")


def settle(blueprint: Blueprint, backend: SpreadBackend) -> None:
    """Give every op its place: that of its weights, or of its path. Tables are made once where they are read."""
    runtimes = {id(one): Runtime(one.device, carries=True) for one in backend.backends}
    for bound in blueprint.ops:
        at = place_of(bound, backend)
        bound.runtime = runtimes[id(at)]
        bound.weights = tuple(
            _constant(blueprint, weight, at) if isinstance(weight, Constant) else weight for weight in bound.weights
        )


def place_of(bound: BoundOp, backend: Backend) -> Backend:
    """The backend that runs an op: where its weights lie, else where its path does."""
    for weight in bound.weights:
        if isinstance(weight, Matrix | Param | CacheSlot):
            return backend.at(weight.path)
    return backend.at(bound.path)


def _constant(blueprint: Blueprint, constant: Constant, at: Backend) -> Constant:
    made = blueprint.constants.setdefault((constant.path, at), Constant(constant.path, constant.make))
    made.device = at.device
    return made
