# SPDX-License-Identifier: Apache-2.0
"""How experts of gpt-oss are stored: gate and up rows alternating, in MXFP4 blocks or plain and transposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config
from tramontane.schemes import Fields, Micro
from tramontane.tensors import Axis, TensorDecl
from tramontane.weightmap import Permute, Spell, Split, Transpose, WeightMap

GATE_UP, EVERY = "{p...}.experts.gate_up_proj", "{p...}.experts.{which}_proj"


def weight_map(config: Mapping[str, Any]) -> WeightMap:
    """Both forms at once: a field that a form does not have is not asked for."""
    width = config["intermediate_size"]
    return WeightMap(
        (
            Split(GATE_UP, {"{p...}.experts.gate_proj": width, "{p...}.experts.up_proj": width}),
            Permute(GATE_UP, shape=(-1, 2), order=(1, 0), fields=None),
            Transpose(EVERY),
            Spell(EVERY, {".weight": "", ".bias": "_bias", ".blocks": "_blocks", ".scales": "_scales"}),
        )
    )


class Mxfp4Experts:
    """The format, as found in a checkpoint whose configuration names it."""

    name = "mxfp4-experts"

    def detect(self, checkpoint: Checkpoint) -> Mxfp4Experts | None:
        """See :class:`~tramontane.build.formats.QuantFormat`."""
        stated = quantization_config(checkpoint.config) or {}
        return self if stated.get("quant_method") == "mxfp4" else None

    def part(self, path: str, shape: tuple[int, ...], lookup: Lookup) -> FormatPart | None:
        """``blocks`` uint8 [O, I / 32, 16], two codes to a byte; ``scales`` uint8 [O, I / 32], exponents plus 127."""
        if lookup.stored("blocks") is None:
            return None
        scheme, inputs = Micro("mxfp4"), shape[-1]
        codes = TensorDecl("blocks", {"out": Axis(0), "in": Axis(1, block=2)}, view=(-1, inputs // 2))
        scales = TensorDecl("scales", {"out": Axis(0), "in": Axis(1, block=scheme.size)})
        return FormatPart(scheme, {"blocks": codes, "scales": scales}, _canonical)


def _canonical(tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Fields:
    return {"weight": tensors["blocks"], "scale": tensors["scales"].view(torch.float8_e8m0fnu)}
