# SPDX-License-Identifier: Apache-2.0
"""Where FP8 and 4-bit floating-point matrices are kept, and which scheme they are.

Definitions: 8-bit floats, Micikevicius et al., arXiv 2209.05433; scales per block, DeepSeek-V3, arXiv 2412.19437,
section 3.3; NVFP4 and MXFP4 as in :mod:`tramontane.schemes.micro`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import ROWS, FormatPart, Lookup, StoredTensor
from tramontane.checkpoint import Checkpoint
from tramontane.errors import PlanError
from tramontane.schemes import NO_ACT, Act, Fields, Float8, Micro
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_fp8.scales import Scales
from tramontane_quant_fp8.settings import Settings, find_settings

Shape = tuple[int, ...]

FLOATS: dict[torch.dtype, Literal["e4m3", "e5m2"]] = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}
FOREIGN = (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
"""The variants without a negative zero, of another exponent bias."""
WEIGHT_SCALES = ("weight_scale_inv", "weight_scale", "scale")
"""What writers call the scales of a weight; all are factors, whatever the name says."""
INPUT_SCALES = ("input_scale", "activation_scale")
UNUSED = (*INPUT_SCALES, "input_scale_ub")
"""What some writers keep beside: scales that the settings do not ask for, and a bound for dynamic ones."""
PAIRS = TensorDecl("weight", {"out": Axis(0), "in": Axis(1, block=2)})


@frozen
class FloatFormat:
    """The small floating-point weights of one checkpoint; a module's tensors say which kind it has."""

    settings: Settings
    name: str = "fp8"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: The tensors of a quantized module are not as they should be.
        """
        weight = lookup.stored("weight")
        if weight is None or weight.dtype.itemsize > 1:
            return None
        if weight.dtype in FOREIGN:
            raise PlanError(f"{weight.name} is {weight.dtype}; of 8-bit floats, {', '.join(map(str, FLOATS))} are read")
        if lookup.stored("pre_quant_scale") is not None:
            raise PlanError(f"{weight.name}: activations that are scaled first (pre_quant_scale) are not supported")
        if weight.dtype in FLOATS:
            return self._float8(weight, lookup)
        return _nvfp4(weight, lookup) if lookup.stored("weight_scale_2") else _mxfp4(weight, lookup)

    def _float8(self, weight: StoredTensor, lookup: Lookup) -> FormatPart:
        name, scale = _first(lookup, WEIGHT_SCALES)
        if scale is None:
            raise PlanError(f"{weight.name} is {weight.dtype}, but has no scale ({', '.join(WEIGHT_SCALES)})")
        scales = Scales.of(weight, scale, name, self.settings.block)
        given, _ = _first(lookup, INPUT_SCALES)
        act = self._act(scales, static=bool(given))
        scheme = Float8(
            act=act,
            fmt=FLOATS[weight.dtype],
            granularity=scales.granularity,
            block=scales.block,
            scale_dtype=scales.dtype,
        )
        fields = {"weight": ROWS, scales.field: scales.decl}
        if act.scale == "static":
            fields[given] = TensorDecl(given)

        def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
            found = {"weight": tensors["weight"], "scale": scales.canonical(tensors[scales.field], shape)}
            if act.scale == "static":
                found["act_scale"] = tensors[given].float().reshape(shape[:-2])
            return found

        return FormatPart(scheme, fields, canonical, known=UNUSED)

    def _act(self, scales: Scales, *, static: bool) -> Act:
        """How activations are quantized beside such weights."""
        if self.settings.activation_scheme == "none":
            return NO_ACT
        if static and self.settings.activation_scheme == "static":
            return Act("fp8", "static", "tensor")
        return Act("fp8", per="group", group=scales.block[1]) if scales.block else Act("fp8", per="token")


def _nvfp4(weight: StoredTensor, lookup: Lookup) -> FormatPart:
    """Model Optimizer's: e4m3 scales per 16 inputs, and a factor for the matrix (arXiv 2509.25149)."""
    scale = lookup.stored("weight_scale")
    if scale is None or scale.dtype is not torch.float8_e4m3fn or weight.dtype is not torch.uint8:
        raise PlanError(f"{weight.name} has a weight_scale_2, but is not NVFP4 (uint8 with a weight_scale of e4m3)")
    scheme = Micro("nvfp4", global_scale=True)
    fields = {
        "weight": PAIRS,
        "weight_scale": TensorDecl("weight_scale", {"out": Axis(0), "in": Axis(1, block=scheme.size)}),
        "weight_scale_2": TensorDecl("weight_scale_2"),
    }

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        factor = tensors["weight_scale_2"].float().reshape(shape[:-2])
        return {"weight": tensors["weight"], "scale": tensors["weight_scale"], "global_scale": factor}

    return FormatPart(scheme, fields, canonical, known=INPUT_SCALES)


def _mxfp4(weight: StoredTensor, lookup: Lookup) -> FormatPart:
    """The experts of DeepSeek-V4: pairs of e2m1 in a byte, exponents per 32 inputs."""
    name, scale = _first(lookup, WEIGHT_SCALES)
    exponents = scale is not None and scale.dtype in (torch.float8_e8m0fnu, torch.uint8)
    if not exponents or weight.dtype not in (torch.int8, torch.uint8):
        raise PlanError(f"{weight.name} is {weight.dtype}, which is neither FP8 nor 4-bit floats with their scales")
    scheme = Micro("mxfp4")
    decl = TensorDecl(name, {"out": Axis(0), "in": Axis(1, block=scheme.size)})

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        scales = tensors[name].view(torch.float8_e8m0fnu)
        return {"weight": tensors["weight"].view(torch.uint8), "scale": scales}

    return FormatPart(scheme, {"weight": PAIRS, name: decl}, canonical, known=INPUT_SCALES)


def _first(lookup: Lookup, fields: tuple[str, ...]) -> tuple[str, StoredTensor | None]:
    """The first of some fields that is stored; an empty name and ``None`` if none is."""
    for field in fields:
        found = lookup.stored(field)
        if found is not None:
            return field, found
    return "", None


class Format:
    """Finds checkpoints with FP8 or NVFP4 weights."""

    def detect(self, checkpoint: Checkpoint) -> FloatFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        settings = find_settings(checkpoint)
        return None if settings is None else FloatFormat(settings)
