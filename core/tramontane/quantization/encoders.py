# SPDX-License-Identifier: Apache-2.0
"""Quicker ways to the same codes: plugins that pack by a rule which a type names, for weights on some kind of device.

A type always packs by itself; this only puts what is quicker before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
from torch import Tensor

from tramontane.quantization.quantizer import Pack, Quantizer
from tramontane.records import EncoderSpec, resolve
from tramontane.schemes import Fields


def quickened(quantizer: Quantizer, specs: Iterable[EncoderSpec]) -> Quantizer:
    """The type, packed by the first encoder (they come by priority) that knows its rule, on each kind of device that
    has one."""
    if not quantizer.rule:
        return quantizer
    offers: dict[str, Pack] = {}
    for spec in specs:
        wanted = [device for device in spec.devices if device not in offers]
        offered = resolve(spec.offer, spec)(quantizer) if wanted else None
        if offered is not None:
            offers |= dict.fromkeys(wanted, offered)
    if not offers:
        return quantizer
    own = quantizer.pack

    def pack(weight: Tensor, importance: Tensor | None) -> Fields:
        return offers.get(weight.device.type, own)(weight, importance)

    return evolve(quantizer, pack=pack)
