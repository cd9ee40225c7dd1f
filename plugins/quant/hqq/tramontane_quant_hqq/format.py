# SPDX-License-Identifier: Apache-2.0
"""Where HQQ keeps a matrix, and how it becomes an affine scheme.

Codes are folded through the whole matrix, so that it is read whole and slices are cut afterwards, except for codes of a
byte each.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup, StoredTensor
from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config
from tramontane.errors import PlanError
from tramontane.schemes import Affine, Fields
from tramontane.schemes.base import require_float
from tramontane.schemes.packing import pack
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_hqq.description import FIELDS, Description
from tramontane_quant_hqq.unfold import codes_of, values_of

Shape = tuple[int, ...]

BOTH = "zero_scale"
"""Zero points and scales in one tensor, as HQQ holds them for moving them between devices."""


@frozen
class HqqFormat:
    """The HQQ weights of one checkpoint. A module is in the format if it has a ``W_q``."""

    name: str = "hqq"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: The module's description and its tensors do not go together.
        """
        stored = lookup.stored("W_q")
        if stored is None:
            return None
        layer = Layer.of(stored, shape, lookup)
        return FormatPart(layer.scheme, layer.fields(), layer.canonical, known=layer.known)


@frozen
class Layer:
    """One module: its scheme, and what is stored of it."""

    description: Description
    scheme: Affine
    quantized: Mapping[str, Description]
    """How scales and zero points are quantized, where they are."""
    in_bytes: bool
    """Codes lie in bytes, which may also be seen as floats."""
    together: bool
    """Scales and zero points are in one tensor."""

    @classmethod
    def of(cls, stored: StoredTensor, shape: Shape, lookup: Lookup) -> Layer:
        """The module whose codes are ``stored``, which has the logical shape [O, I] or [X, O, I]."""
        name = stored.name.removesuffix(".W_q")
        description = Description.of(lookup, name)
        outputs, inputs = shape[-2:]
        if len(description.shape) != 2 or description.shape[-1] != inputs:
            raise PlanError(f"{name} is described as {list(description.shape)}, but the model wants {list(shape)}")
        quantized = {
            one: Description.of(lookup, f"{name}.meta_{one}", f"meta_{one}_")
            for one in ("scale", "zero")
            if lookup.stored(f"meta_{one}_packing") is not None
        }
        group = description.group
        if not description.channel_wise or group is None:
            raise PlanError(f"{name}: one scale for a whole matrix is not supported with HQQ")
        if description.axis == 0 and (description.shape[0] != outputs or outputs % group):
            raise PlanError(
                f"{name}: groups of {group} run down {description.shape[0]} outputs, which cannot be read as whole "
                f"groups of {outputs} outputs"
            )
        kept = Affine(
            bits=description.whole_bits,
            group=gcd(group, inputs) if description.axis == 1 else group,
            group_axis="in" if description.axis == 1 else "out",
            zero="float",
            scale_dtype=_scale_dtype(lookup, quantized),
        )
        return cls(description, kept, quantized, stored.dtype is torch.uint8, lookup.stored(BOTH) is not None)

    @property
    def known(self) -> tuple[str, ...]:
        """Fields that describe, of the module and of what is quantized in it."""
        return (*FIELDS, *(f"meta_{one}_{field}" for one in self.quantized for field in FIELDS))

    @property
    def whole_rows(self) -> bool:
        """Whether groups end with their rows."""
        return self.scheme.group == self.description.group

    def fields(self) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored."""
        rows = TensorDecl("W_q", {"out": Axis(0), "in": Axis(1)}, view=(-1, self.description.shape[-1]))
        found = {"W_q": rows if self._is_plain else TensorDecl("W_q", sliceable=False)}
        if self.together:
            return {**found, BOTH: TensorDecl(BOTH, sliceable=False)}
        for one in ("scale", "zero"):
            if one in self.quantized:
                found[f"{one}_q"] = TensorDecl(f"{one}_q", sliceable=False)
            else:
                found[one] = self._grouped(one)
        return found | self._inner()

    def _inner(self) -> dict[str, TensorDecl]:
        """Scales and zero points of scales and zero points."""
        names = [f"meta_{one}_{inner}" for one in self.quantized for inner in ("scale", "zero")]
        return {name: TensorDecl(name) for name in names}

    @property
    def _is_plain(self) -> bool:
        """A byte per code, which can be cut anywhere."""
        return self.description.slots == 1 and self.in_bytes

    def _grouped(self, name: str) -> TensorDecl:
        inputs, group = self.description.shape[-1], self.scheme.group
        if self.scheme.group_axis == "out":
            return TensorDecl(name, {"in": Axis(1)}, view=(-1, inputs))
        if not self.whole_rows:
            return TensorDecl(name, sliceable=False)
        return TensorDecl(name, {"out": Axis(0), "in": Axis(1, block=group)}, view=(-1, inputs // group))

    def canonical(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        """See :class:`tramontane.build.formats.FormatPart`."""
        if len(shape) == 2:
            return self._matrix(tensors, shape)
        each = [
            self._matrix({name: one[number] for name, one in tensors.items()}, shape[1:]) for number in range(shape[0])
        ]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]} if each else {}

    def _matrix(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        if self._is_plain:
            codes_OI = tensors["W_q"].contiguous().view(torch.uint8).reshape(shape)
        else:
            codes_OI = codes_of(tensors["W_q"], self.description).view(shape)
        if self.together:
            names = ("zero_q", "scale_q") if "scale" in self.quantized else ("zero", "scale")
            tensors = {**tensors, **dict(zip(names, tensors[BOTH].unbind(), strict=True))}
        found = {"weight": pack(codes_OI, self.scheme.bits)}
        for name in ("scale", "zero"):
            values = values_of(tensors, name, self.quantized.get(name)).to(self.scheme.scale_dtype)
            seen = name not in self.quantized and not self.together and self.whole_rows  # by rows when read
            found[name] = (values if seen else self._by_rows(values, shape)).contiguous()
        return found

    def _by_rows(self, values: Tensor, shape: Shape) -> Tensor:
        """A value per group of a whole matrix in the scheme's shape: [O, groups of a row], or [G, I]."""
        outputs, inputs = shape
        if self.scheme.group_axis == "out":
            return values.reshape(-1, inputs)
        # Groups that cross rows become smaller ones of equal values.
        per_group = (self.description.group or 1) // self.scheme.group
        return values.flatten().repeat_interleave(per_group).reshape(outputs, -1)


def _scale_dtype(lookup: Lookup, quantized: Mapping[str, Description]) -> torch.dtype:
    """The type that holds scales and zero points exactly; float32 for those that are computed."""
    found = [lookup.stored(name) for name in ("scale", "zero", BOTH) if name not in quantized]
    dtypes = [stored.dtype for stored in found if stored is not None]
    if quantized or not dtypes:
        return torch.float32
    for dtype in dtypes:
        require_float(dtype, "scales and zero points")
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


class Format:
    """Finds checkpoints with HQQ weights; HQQ's own files do not say so in their configuration."""

    def detect(self, checkpoint: Checkpoint) -> HqqFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        method = (quantization_config(checkpoint.config) or {}).get("quant_method")
        if method == "hqq" or (method is None and any(name.endswith(".W_q") for name in checkpoint.tensors)):
            return HqqFormat()
        return None
