# SPDX-License-Identifier: Apache-2.0
"""How fast types are packed: bfloat16 weights a second of processor time, by the types themselves and as a load does
it, with the installed encoders."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tramontane.bench.quantization.records import Row
from tramontane.plugins import installed
from tramontane.quantization import Pack
from tramontane.quantization.encoders import quickened
from tramontane.records import resolve

ROWS, INPUTS = 256, 1024
SECONDS = 0.5
"""Of processor time at least, for each figure."""


def measure(kinds: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """Megabytes a second of processor time, all threads together, type by type: ``own`` and ``quick``."""
    catalogs = installed().catalogs
    weight = (torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    for kind in kinds:
        spec = catalogs.quantizers.get(kind)
        own = resolve(spec.make, spec)(spec.name)
        quick = quickened(own, catalogs.encoders)
        row = {"own": rate(own.pack, weight)}
        yield kind, row if quick is own else row | {"quick": rate(quick.pack, weight)}


def rate(pack: Pack, weight: Tensor) -> float:
    """Bytes of the weight, in millions, that a second of processor time packs."""
    pack(weight[:64], None)  # what is done once
    begin, times = time.process_time(), 0
    while (spent := time.process_time() - begin) < SECONDS:
        pack(weight, None)
        times += 1
    return times * weight.nbytes / spent / 1e6
