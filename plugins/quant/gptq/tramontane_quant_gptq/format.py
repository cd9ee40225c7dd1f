# SPDX-License-Identifier: Apache-2.0
"""Where GPTQ keeps a matrix, and how it becomes an affine scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.errors import PlanError
from tramontane.schemes import Affine, Fields
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_gptq.packing import check_in_order, check_middle, codes_of, zeros_of
from tramontane_quant_gptq.settings import Settings, find_settings

Shape = tuple[int, ...]


@frozen
class GptqFormat:
    """The GPTQ weights of one checkpoint. A module is in the format if it has a ``qweight``."""

    settings: Settings
    name: str = "gptq"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: Fields are missing or of a type that is not supported.
        """
        stored = lookup.stored("qweight")
        if stored is None:
            return None
        module = stored.name.removesuffix(".qweight")
        layer = Layer.of(self.settings.of_module(module), module, shape, lookup)
        return FormatPart(layer.scheme, layer.fields(), layer.canonical, known=_no_biases(lookup))


@frozen
class Layer:
    """One module: its scheme, and what is stored of it."""

    name: str
    scheme: Affine
    minus_one: bool
    """Zero points are stored less one."""
    zeros: bool
    groups: bool
    """Whether zero points, and the group of each input, are stored."""

    @classmethod
    def of(cls, settings: Settings, name: str, shape: Shape, lookup: Lookup) -> Layer:
        """The module ``name``, which has the logical shape [O, I] or [X, O, I]."""
        group = 0 if settings.group_size in (-1, shape[-1]) else settings.group_size
        act_order = settings.desc_act and bool(group)  # in one group there is no order
        _find(lookup, name, "qweight", torch.int32)
        zeros = _find(lookup, name, "qzeros", torch.int32, needed=not settings.sym)
        groups = _find(lookup, name, "g_idx", torch.int32, needed=act_order)
        zero: Literal["none", "int"] = "none" if settings.sym else "int"
        scheme = Affine(
            bits=settings.bits,
            group=group,
            zero=zero,
            act_order=act_order,
            scale_dtype=_find(lookup, name, "scales", None) or torch.float16,
        )
        return cls(name, scheme, settings.checkpoint_format == "gptq", zeros is not None, groups is not None)

    def fields(self) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored."""
        bits, group, ordered = self.scheme.bits, self.scheme.group, self.scheme.act_order
        words = {"block": 32, "width": 3} if bits == 3 else {"block": 32 // bits}
        # With an order of its own any input may be in any group, so all groups are read for every slice.
        groups = {"in": Axis(0, block=group)} if group and not ordered else {}
        found = {
            "qweight": TensorDecl("qweight", {"in": Axis(0, **words), "out": Axis(1)}),
            "scales": TensorDecl("scales", {**groups, "out": Axis(1)}),
        }
        if self.zeros:
            found["qzeros"] = TensorDecl("qzeros", {**groups, "out": Axis(1, **words)})
        if self.groups:
            found["g_idx"] = TensorDecl("g_idx", {"in": Axis(0)} if ordered else {})
        return found

    def canonical(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        """See :class:`tramontane.build.formats.FormatPart`."""
        *_, outputs, inputs = shape
        bits = self.scheme.bits
        scale = tensors["scales"].transpose(-1, -2).contiguous()
        found = {"weight": codes_of(tensors["qweight"], bits, inputs), "scale": scale}
        if self.zeros:
            zeros = zeros_of(tensors["qzeros"], bits, outputs, minus_one=self.minus_one)
            if self.scheme.zero == "none":
                check_middle(zeros, bits, self.name)
            else:
                found["zero"] = zeros
        if self.scheme.act_order:
            found["group_index"] = tensors["g_idx"]
        elif self.groups:
            check_in_order(tensors["g_idx"], self.scheme.group, self.name)
        return found


def _find(
    lookup: Lookup, module: str, field: str, dtype: torch.dtype | None, *, needed: bool = True
) -> torch.dtype | None:
    """The type of a field; ``None`` if it is absent and not needed.

    Raises:
        PlanError: It is absent, or not of the type it must have.
    """
    stored = lookup.stored(field)
    if stored is None:
        if needed:
            raise PlanError(f"{module} has a qweight, but no {field}")
        return None
    if dtype is not None and stored.dtype is not dtype:
        raise PlanError(f"{stored.name} is {stored.dtype}; GPTQ weights packed into {dtype} are supported")
    return stored.dtype


def _no_biases(lookup: Lookup) -> tuple[str, ...]:
    """Old writers gave every module a bias; one that is zero is not missed by a model that has none."""
    biases = lookup.values("bias")
    return ("bias",) if biases and not any(bool(bias.any()) for bias in biases) else ()


class Format:
    """Finds checkpoints with GPTQ weights."""

    def detect(self, checkpoint: Checkpoint) -> GptqFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        settings = find_settings(checkpoint)
        return None if settings is None else GptqFormat(settings)
