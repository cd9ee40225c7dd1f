# SPDX-License-Identifier: Apache-2.0
"""What is written of a model: its layers, as named tensors (1.2) or as numbered blobs (0.2), and the tensors beside
them. Sizes are known before anything is read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import define, evolve, frozen
from torch import Tensor

from tramontane.checkpoint import TensorRef
from tramontane.export import Export, ModelTensor, Outgoing
from tramontane.load.design import weight_maps
from tramontane.saved.files import Slot
from tramontane.schemes import Dense
from tramontane.weightmap import Stack, WeightMap
from tramontane_quant_uqff.names import Kind
from tramontane_quant_uqff.numbered import blob_of
from tramontane_quant_uqff.order import HEAD, order_of
from tramontane_quant_uqff.packing import Packed, packed_layer

_log = logging.getLogger(__name__)

ROUTER, ROWS = "router", "rows"
"""Uses of matrices: what no reader looks for among the layers, and what versions before 1.2 leave as it is."""


@frozen
class Layer:
    """A module that is written among the layers."""

    name: str
    shape: tuple[int, ...]
    label: str
    """Its type in reports."""
    lost: str
    """The scheme that it has no form for; empty if it is stored in its own."""
    slots: Mapping[str, Slot]
    make: Callable[[], Mapping[str, Tensor]]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return sum(slot.nbytes for slot in self.slots.values())


@frozen
class Plain:
    """A tensor that no layer holds."""

    slot: Slot
    make: Callable[[], Tensor]


Sorted = tuple[list[Layer], dict[str, Plain]]


def named(export: Export) -> Sorted:
    """The layers by name, experts stacked, and the residual tensors."""
    usual = weight_maps(export.architecture, export.config)[0]
    names = evolve(usual, rules=[rule for rule in usual.rules if not isinstance(rule, Stack)])
    tensors, matrices = _tensors(export, names)
    modules = {module: tensor for module, tensor in sorted(matrices.items()) if ROUTER not in tensor.uses}
    layers = [_named(module, tensor, tensors.get(f"{module}.bias")) for module, tensor in modules.items()]
    _say_lost(layers)
    return layers, _others(tensors, modules)


def numbered(export: Export) -> Sorted:
    """The layers in order, experts one by one, and the residual tensors, the embedding among them. A tied head is a
    layer of its own.

    Raises:
        PlanError: The order of this model's layers is not known.
    """
    tensors, matrices = _tensors(_held(export), weight_maps(export.architecture, export.config)[0])
    modules = {module: tensor for module, tensor in matrices.items() if ROWS not in tensor.uses}
    if HEAD not in modules:
        modules[HEAD] = next(tensor for tensor in matrices.values() if ROWS in tensor.uses)
    order = order_of(modules, export.config, tensors, export.architecture.name)
    layers = [
        _numbered(str(number), module, modules[module], tensors.get(f"{module}.bias"))
        for number, module in enumerate(order)
    ]
    _say_lost(layers)
    others = _others(tensors, order)
    dtype = export.config.get("dtype") or export.config.get("torch_dtype")
    kept = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(str(dtype), torch.float32)
    return layers, {name: _as_kept(tensors[name], one, kept) for name, one in others.items()}


def _tensors(export: Export, names: WeightMap) -> tuple[dict[str, Outgoing], dict[str, Outgoing]]:
    """All tensors by name, and the matrices by module."""
    tensors = {tensor.name: tensor for tensor in export.outgoing(names)}
    matrices = {
        name.removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
        if tensor.is_matrix and name.endswith(".weight")
    }
    return tensors, matrices


def _others(tensors: Mapping[str, Outgoing], modules: Sequence[str] | Mapping[str, object]) -> dict[str, Plain]:
    taken = {f"{module}.{field}" for module in modules for field in ("weight", "bias")}
    return {name: Plain(_slot(tensor), tensor.dense) for name, tensor in tensors.items() if name not in taken}


def _as_kept(tensor: Outgoing, plain: Plain, dtype: torch.dtype) -> Plain:
    """A residual matrix that was quantized, as numbers of the model's type."""
    if tensor.scheme is None or isinstance(tensor.scheme, Dense):
        return plain
    return Plain(Slot(dtype, plain.slot.shape), lambda: tensor.dense().to(dtype))


def _slot(tensor: Outgoing) -> Slot:
    value = tensor.dense()  # headers do not say what a value map makes of a type; these are small
    return Slot(value.dtype, tuple(value.shape))


def _lost(tensor: Outgoing, packed: Packed) -> str:
    if packed.kind is not Kind.UNQUANT or isinstance(tensor.scheme, Dense):
        return ""
    return "parts of several types" if tensor.scheme is None else tensor.scheme.name


def _named(module: str, tensor: Outgoing, bias: Outgoing | None) -> Layer:
    packed = packed_layer(tensor)
    slots = {f"{module}.{field}": slot for field, slot in packed.slots.items()}
    if bias is not None:
        slots[f"{module}.bias"] = _slot(bias)

    def make() -> dict[str, Tensor]:
        made = {f"{module}.{field}": value for field, value in packed.make().items()}
        return made if bias is None else {**made, f"{module}.bias": bias.dense()}

    return Layer(module, tensor.shape, packed.label, _lost(tensor, packed), slots, make)


def _numbered(number: str, module: str, tensor: Outgoing, bias: Outgoing | None) -> Layer:
    packed = packed_layer(tensor)
    blob = blob_of(module, packed, None if bias is None else _slot(bias), None if bias is None else bias.dense)
    slots = {number: Slot(torch.uint8, (blob.nbytes,))}
    return Layer(module, tensor.shape, packed.label, _lost(tensor, packed), slots, lambda: {number: blob.make()})


def _say_lost(layers: Sequence[Layer]) -> None:
    """Matrices that the format cannot hold in their types become plain numbers; that is said once."""
    lost = Counter(f"{list(layer.shape)} in {layer.lost}" for layer in layers if layer.lost)
    if lost:
        listed = ", ".join(f"{count} x {what}" for what, count in lost.items())
        _log.warning("%d matrices have no form in UQFF and are written as numbers: %s", lost.total(), listed)


@define(kw_only=True, eq=False)
class _Held(TensorRef):
    """A field of a stack of experts, kept from the first expert that is written to the last: reading may quantize."""

    origin: TensorRef
    left: int
    _value: Tensor | None = None

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        whole = self.origin.read() if self._value is None else self._value
        self.left -= 1
        self._value = whole if self.left > 0 else None
        wanted = whole if index is None else whole[index]
        return wanted if out is None else out.copy_(wanted)


def _held(export: Export) -> Export:
    """The model with the experts' fields held while they are written one by one."""
    return evolve(export, tensors={name: _held_stack(tensor) for name, tensor in export.tensors.items()})


def _held_stack(tensor: ModelTensor) -> ModelTensor:
    if tensor.scheme is None or len(tensor.shape) != 3:
        return tensor
    fields = {
        name: _Held(name=ref.name, dtype=ref.dtype, shape=ref.shape, origin=ref, left=tensor.shape[0])
        for name, ref in tensor.fields.items()
    }
    return evolve(tensor, fields=fields)
