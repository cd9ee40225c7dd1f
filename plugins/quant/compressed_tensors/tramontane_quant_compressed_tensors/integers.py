# SPDX-License-Identifier: Apache-2.0
"""Integer weights as an affine scheme: packed into words, or one per byte.

``w = (q - zero) * scale`` with signed ``q`` and ``zero``. Packed, both are stored plus half their range, a row as one
little-endian stream of bits: the canonical packing. Zero points are packed the same way down the outputs.

Legend: O outputs, I inputs, G groups; leading dimensions are experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import ROWS, FormatPart, Lookup, StoredTensor
from tramontane.errors import PlanError
from tramontane.schemes import Act, Affine, Fields
from tramontane.schemes.packing import octets, pack, packed_size, unpack
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_compressed_tensors.activations import FIELDS, STATIC, act_fields, act_of
from tramontane_quant_compressed_tensors.settings import Args, Group

Shape = tuple[int, ...]

PACKED, SCALE, ZERO, ORDER = "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx"


@frozen
class Integers:
    """One module: its scheme, and how codes and zero points are stored."""

    scheme: Affine
    kind: str
    packed: bool
    packed_zeros: bool

    @classmethod
    def part(cls, name: str, group: Group, args: Args, shape: Shape, lookup: Lookup) -> FormatPart:
        """How the module ``name`` is stored.

        Raises:
            PlanError: Its settings and its tensors do not go together, or no scheme has them.
        """
        if not 1 <= args.num_bits <= 8 or args.kind not in ("tensor", "channel", "group"):
            raise PlanError(f"{name}: integers of {args.num_bits} bits with a scale per {args.kind} are not supported")
        order = any(bool((one.long() >= 0).any()) for one in lookup.values(ORDER))  # -1: there is none
        if args.has_order and not order:
            raise PlanError(f"{name} has an order of activations, but no {ORDER}")
        zeros = None if args.symmetric else _needed(lookup, name, ZERO)
        size = args.group_size or 0 if args.kind == "group" else 0
        if args.kind == "group" and size < 1:
            raise PlanError(f"{name}: a scale per group needs a group_size above 0, not {args.group_size}")
        act = act_of(group.input_activations, lookup)
        scheme = Affine(
            act=act,
            bits=args.num_bits,
            group=0 if size == shape[-1] else size,
            zero="none" if zeros is None else "int",
            act_order=order and size != shape[-1],
            scale_dtype=_needed(lookup, name, SCALE).dtype,
        )
        packed_zeros = zeros is not None and zeros.dtype is torch.int32
        made = cls(scheme, args.kind, lookup.stored(PACKED) is not None, packed_zeros)
        return FormatPart(scheme, made.fields(shape, act), made.canonical, known=(*FIELDS, ORDER))

    def fields(self, shape: Shape, act: Act) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored."""
        outputs, inputs = shape[-2:]
        bits, size, ordered = self.scheme.bits, self.scheme.group, self.scheme.act_order
        found = {"weight": ROWS}
        if self.packed:
            found = {PACKED: _words(PACKED, bits, {"in": inputs}, {"out": Axis(0)}, 1)}
        into = {"in": Axis(1, block=size)} if size and not ordered else {}
        found[SCALE] = TensorDecl(SCALE, {} if self.kind == "tensor" else {"out": Axis(0), **into})
        if self.packed_zeros:
            found[ZERO] = _words(ZERO, bits, {"out": outputs}, into, 0)
        elif self.scheme.zero == "int":
            found[ZERO] = TensorDecl(ZERO, found[SCALE].axes)
        if ordered:
            found[ORDER] = TensorDecl(ORDER, {"in": Axis(0)})
        if act.scale == "static":
            found[STATIC] = TensorDecl(STATIC)
        return found

    def canonical(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        """See :class:`tramontane.build.formats.FormatPart`."""
        *lead, outputs, inputs = shape
        bits, half = self.scheme.bits, 2 ** (self.scheme.bits - 1)
        if self.packed:
            weight = _stream(tensors[PACKED], bits, inputs)
        else:
            weight = pack(tensors["weight"].view(torch.uint8) + half, bits)  # modulo 256, as two's complement wants
        found = {"weight": weight, "scale": self._per_group(tensors[SCALE], shape)}
        if self.packed_zeros:
            zeros_GO = unpack(_stream(tensors[ZERO].transpose(-1, -2), bits, outputs), bits, outputs)
            found["zero"] = zeros_GO.transpose(-1, -2).contiguous()
        elif self.scheme.zero == "int":
            found["zero"] = self._per_group((tensors[ZERO].to(torch.int16) + half).to(torch.uint8), shape)
        if self.scheme.act_order:
            found["group_index"] = tensors[ORDER].to(torch.int32)
        return found | act_fields(self.scheme.act, tensors, tuple(lead))

    def _per_group(self, values: Tensor, shape: Shape) -> Tensor:
        """Scales or zero points as [.., O, G]."""
        *lead, outputs, _ = shape
        if self.kind == "tensor":
            return values.reshape(*lead, 1, 1).expand(*lead, outputs, 1).contiguous()
        return values.reshape(*lead, outputs, -1) if values.dim() <= len(lead) + 1 else values.contiguous()


def _stream(words: Tensor, bits: int, count: int) -> Tensor:
    """Words of ``count`` codes along the last dimension as canonical bytes, which may be some more or fewer."""
    stream, wanted = octets(words), packed_size(count, bits)
    short = wanted - stream.shape[-1]
    return torch.nn.functional.pad(stream, (0, short)) if short > 0 else stream[..., :wanted].contiguous()


def _words(name: str, bits: int, along: dict[str, int], others: Mapping[str, Axis], dim: int) -> TensorDecl:
    """Codes packed into words along one axis. Where the last words of a run of codes are left out, nothing is cut."""
    ((axis, size),) = along.items()
    together = gcd(32, bits)
    words = Axis(dim, block=32 // together, width=bits // together)
    if words.stored_size(size) != -(-size * bits // 32):
        return TensorDecl(name, sliceable=False)
    return TensorDecl(name, {**others, axis: words})


def _needed(lookup: Lookup, module: str, field: str) -> StoredTensor:
    stored = lookup.stored(field)
    if stored is None:
        raise PlanError(f"{module} is quantized, but has no {field}")
    return stored
