# SPDX-License-Identifier: Apache-2.0
"""How names and shapes of a checkpoint differ from the model's, as reversible rules.

A rule takes a tensor's name on the model's side and answers with a source over names on the stored side. Every rule
knows its inverse, which serves saving and the naming of unexpected tensors. Patterns are those of
:mod:`tramontane.weightmap.patterns`; they match module paths; fields (``.weight``, ``.bias``, ``.qweight`` ...) follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from attrs import evolve, field, frozen

from tramontane.errors import PlanError
from tramontane.tensors import Ranges, length, merge
from tramontane.weightmap import sources
from tramontane.weightmap.patterns import check_same, fill, holes, match
from tramontane.weightmap.sources import Leaf, Segment, Source
from tramontane.weightmap.values import ValueMap


class Rule(ABC):
    """One difference between a model's tensors and a checkpoint's."""

    @abstractmethod
    def apply(self, leaf: Leaf) -> Source | None:
        """The source of a tensor named as on the model's side; ``None`` if the rule is not about it."""

    @abstractmethod
    def inverse(self) -> Rule:
        """The rule from the stored side to the model's."""


def _pairs(value: Mapping[str, str]) -> Mapping[str, str]:
    for ours, theirs in value.items():
        check_same(ours, theirs)
    if len(set(value.values())) != len(value):
        raise PlanError("two patterns have one name on the stored side, which cannot be reversed")
    return MappingProxyType(dict(value))


@frozen
class Rename(Rule):
    """Other module paths: ``{"model.norm": "output_norm", "model.layers.{i}.mlp": "blk.{i}.ffn"}``.

    All pairs are tried at once, the first that matches is used; the result is not renamed again.
    """

    pairs: Mapping[str, str] = field(converter=_pairs)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        for ours, theirs in self.pairs.items():
            found = match(ours, leaf.name)
            if found is not None:
                return Leaf(fill(theirs, found[0]) + found[1])
        return None

    def inverse(self) -> Rename:
        """See :meth:`Rule.inverse`."""
        return Rename({theirs: ours for ours, theirs in self.pairs.items()})


@frozen
class Spell(Rule):
    """Other spellings of the fields of a module: ``{".bias": "_bias", ".weight": ""}``.

    With these, ``experts.down_proj.bias`` is stored as ``experts.down_proj_bias``, and the weight as
    ``experts.down_proj``.
    """

    module: str
    fields: Mapping[str, str] = field(converter=_pairs)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`; the longest ending is tried first."""
        for ours in sorted(self.fields, key=len, reverse=True):
            if not leaf.name.endswith(ours):
                continue
            module = leaf.name[: len(leaf.name) - len(ours)]
            found = match(self.module, module)
            if found is not None and not found[1]:
                return Leaf(module + self.fields[ours])
        return None

    def inverse(self) -> Spell:
        """See :meth:`Rule.inverse`."""
        return Spell(self.module, {theirs: ours for ours, theirs in self.fields.items()})


def _parts(value: Mapping[str, int | Ranges]) -> Mapping[str, Ranges]:
    """Sizes become ranges one behind the other; the ranges must cover the fused axis exactly once."""
    found: dict[str, Ranges] = {}
    end = 0
    for name, part in value.items():
        found[name] = ((end, end + part),) if isinstance(part, int) else tuple(part)
        end += part if isinstance(part, int) else length(part)
    covered = merge(sorted(one for ranges in found.values() for one in ranges))
    if covered != (((0, end),) if end else ()):
        raise PlanError(f"the parts {', '.join(found)} must cover the fused axis exactly once, not {list(covered)}")
    return MappingProxyType(found)


@frozen
class Split(Rule):
    """The model has parts, the checkpoint one fused module.

    ``Split("{p...}.qkv_proj", {"{p...}.q_proj": 64, "{p...}.k_proj": 32, "{p...}.v_proj": 32})``. A part may also be
    ranges of the fused axis, where parts alternate.
    """

    fused: str
    parts: Mapping[str, Ranges] = field(converter=_parts)
    axis: str = "out"

    def __attrs_post_init__(self) -> None:
        check_same(self.fused, *self.parts)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        size = sum(length(ranges) for ranges in self.parts.values())
        for part, ranges in self.parts.items():
            found = match(part, leaf.name)
            if found is not None:
                return sources.Select(Leaf(fill(self.fused, found[0]) + found[1]), self.axis, ranges, size)
        return None

    def inverse(self) -> Join:
        """See :meth:`Rule.inverse`."""
        return Join(self.fused, self.parts, self.axis)


@frozen
class Join(Rule):
    """The model has one module, the checkpoint its parts; the inverse of :class:`Split`, with the same arguments."""

    fused: str
    parts: Mapping[str, Ranges] = field(converter=_parts)
    axis: str = "out"

    def __attrs_post_init__(self) -> None:
        check_same(self.fused, *self.parts)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        found = match(self.fused, leaf.name)
        if found is None:
            return None
        placed = []
        for part, ranges in self.parts.items():
            source, start = Leaf(fill(part, found[0]) + found[1]), 0
            for low, high in ranges:
                placed.append((low, Segment(source, start, start + high - low)))
                start += high - low
        placed.sort(key=lambda item: item[0])
        return sources.Concat(self.axis, tuple(segment for _, segment in placed))

    def inverse(self) -> Split:
        """See :meth:`Rule.inverse`."""
        return Split(self.fused, self.parts, self.axis)


@frozen
class _Experts(Rule):
    """Experts stacked in one module, and one by one: ``{e}`` in the single one's pattern is the expert's number."""

    stacked: str
    single: str
    count: int
    axis: str = "expert"
    hole: str = "e"

    def __attrs_post_init__(self) -> None:
        if self.hole in holes(self.stacked) or self.count < 1:
            raise PlanError(f"not a stack of experts: {self!r}")
        check_same(self.stacked, self.single, beside=frozenset({self.hole}))


@frozen
class Stack(_Experts):
    """The model has a stack, the checkpoint one module per expert."""

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        found = match(self.stacked, leaf.name)
        if found is None:
            return None
        names = (fill(self.single, {**found[0], self.hole: str(number)}) + found[1] for number in range(self.count))
        return sources.Stack(self.axis, tuple(Leaf(name) for name in names))

    def inverse(self) -> Unstack:
        """See :meth:`Rule.inverse`."""
        return Unstack(self.stacked, self.single, self.count, self.axis, self.hole)


@frozen
class Unstack(_Experts):
    """The model has one module per expert, the checkpoint a stack; the inverse of :class:`Stack`."""

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        found = match(self.single, leaf.name)
        if found is None:
            return None
        values, rest = found
        number = values.pop(self.hole)
        if not number.isdecimal() or int(number) >= self.count:
            return None
        return sources.Pick(Leaf(fill(self.stacked, values) + rest), self.axis, int(number), self.count)

    def inverse(self) -> Stack:
        """See :meth:`Rule.inverse`."""
        return Stack(self.stacked, self.single, self.count, self.axis, self.hole)


@frozen
class _Fieldwise(Rule):
    """Changes some fields of modules and no names. ``fields`` have their dot; ``None`` means every field."""

    module: str
    fields: tuple[str, ...] | None = field(default=(".weight",), kw_only=True)

    def concerns(self, leaf: Leaf) -> bool:
        """Whether the rule is about this tensor."""
        found = match(self.module, leaf.name)
        return found is not None and (self.fields is None or found[1] in self.fields)


@frozen
class Transpose(_Fieldwise):
    """Stored as [in, out] instead of [out, in]; its own inverse."""

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        return sources.Transpose(leaf) if self.concerns(leaf) else None

    def inverse(self) -> Transpose:
        """See :meth:`Rule.inverse`."""
        return self


@frozen
class Squeeze(_Fieldwise):
    """Stored with a further dimension of one element, at ``dim``."""

    dim: int = field(kw_only=True)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        return sources.Squeeze(leaf, self.dim) if self.concerns(leaf) else None

    def inverse(self) -> Unsqueeze:
        """See :meth:`Rule.inverse`."""
        return Unsqueeze(self.module, fields=self.fields, dim=self.dim)


@frozen
class Unsqueeze(_Fieldwise):
    """Stored without the dimension ``dim``, which has one element; the inverse of :class:`Squeeze`."""

    dim: int = field(kw_only=True)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        return sources.Unsqueeze(leaf, self.dim) if self.concerns(leaf) else None

    def inverse(self) -> Squeeze:
        """See :meth:`Rule.inverse`."""
        return Squeeze(self.module, fields=self.fields, dim=self.dim)


@frozen
class Permute(_Fieldwise):
    """Elements of an axis stored in another order; for every field that has the axis unless ``fields`` says otherwise.

    Seen as ``shape`` (one entry may be -1) and transposed to ``order``, the stored elements are the model's. Rotary
    pairs stored side by side (GGUF's Llama) are ``shape=(heads, -1, 2), order=(0, 2, 1)``; gate and up rows that
    alternate are ``shape=(-1, 2), order=(1, 0)``.
    """

    shape: tuple[int, ...] = field(kw_only=True)
    order: tuple[int, ...] = field(kw_only=True)
    axis: str = field(default="out", kw_only=True)
    fields: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.shape))) or self.shape.count(-1) > 1:
            raise PlanError(f"not a reordering: {self!r}")

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        return sources.Permute(leaf, self.axis, self.shape, self.order) if self.concerns(leaf) else None

    def inverse(self) -> Permute:
        """See :meth:`Rule.inverse`."""
        back = tuple(self.order.index(position) for position in range(len(self.order)))
        return evolve(self, shape=tuple(self.shape[position] for position in self.order), order=back)


@frozen
class Convert(_Fieldwise):
    """Values stored through a function; meant for dense tensors."""

    values: ValueMap = field(kw_only=True)

    def apply(self, leaf: Leaf) -> Source | None:
        """See :meth:`Rule.apply`."""
        return sources.Convert(leaf, self.values) if self.concerns(leaf) else None

    def inverse(self) -> Convert:
        """See :meth:`Rule.inverse`."""
        return evolve(self, values=self.values.inverse())
