# SPDX-License-Identifier: Apache-2.0
"""A weight map: the rules of one architecture and checkpoint dialect, asked in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import evolve, field, frozen

from tramontane.errors import PlanError
from tramontane.tensors import TensorDecl
from tramontane.weightmap.reads import Read
from tramontane.weightmap.rules import Rule, Split, Stack
from tramontane.weightmap.sources import Leaf, Source, Tensors

#: Buffers that old checkpoints store and that are computed; scales of a quantized cache, for the cache has the type it
#: is asked to have, whatever the weights are.
IGNORED = (r"(.*\.)?rotary_emb\.inv_freq", r".*\.(?:k|v|q|kv|prob)_(?:scale|zero_point)")


def tensor_name(path: str, field_name: str) -> str:
    """Name of a field of a module: ``path.field``, or the path alone where the field is empty."""
    return f"{path}.{field_name}" if field_name else path


def _rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(rules)


def _groups(groups: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group) for group in groups)


def _compiled(patterns: Iterable[str]) -> tuple[str, ...]:
    patterns = tuple(patterns)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise PlanError(f"not a regular expression: {pattern!r} ({error})") from error
    return patterns


@frozen
class WeightMap:
    """How a model's tensors lie in a checkpoint. The empty map is the identity.

    Attributes:
        rules: Applied in order, from the model's names to the stored ones.
        ties: Groups of module paths that share one weight; a checkpoint may store it under any of them.
        ignore: Regular expressions of stored names that are not missed by anyone.
    """

    rules: tuple[Rule, ...] = field(default=(), converter=_rules)
    ties: tuple[tuple[str, ...], ...] = field(default=(), converter=_groups)
    ignore: tuple[str, ...] = field(default=IGNORED, converter=_compiled)

    def source(self, path: str, field_name: str = "weight") -> Source:
        """Where a field of a module comes from."""
        found: Source = Leaf(tensor_name(path, field_name))
        for rule in self.rules:
            found = found.rewrite(rule.apply)
        return found

    def resolve(self, path: str, field_name: str, available: Collection[str]) -> Source:
        """As :meth:`source`, but through a tied module where the checkpoint has only that one's tensors."""
        own = self.source(path, field_name)
        for other in (path, *self._tied(path)):
            found = own if other == path else self.source(other, field_name)
            if all(name in available for name in found.names()):
                return found
        return own

    def has(self, path: str, field_name: str, available: Collection[str]) -> bool:
        """Whether the checkpoint holds every tensor that a field of a module needs."""
        return all(name in available for name in self.resolve(path, field_name, available).names())

    def inverse(self) -> WeightMap:
        """The map from the stored names to the model's: for saving, and for naming what a stored tensor is."""
        return evolve(self, rules=tuple(rule.inverse() for rule in reversed(self.rules)))

    def as_the_model_has_them(self) -> WeightMap:
        """The map for checkpoints that stack experts and part fused modules as the model does, whatever the usual ones
        of the architecture do; itself where that makes no difference."""
        kept = tuple(rule for rule in self.rules if not isinstance(rule, Split | Stack))
        return self if kept == self.rules else evolve(self, rules=kept)

    def model_names(self, stored: str) -> tuple[str, ...]:
        """Names on the model's side of the tensors that a stored tensor holds (a part of)."""
        return self.inverse().source(stored, "").names()

    def stored_names(self, model: Iterable[str]) -> tuple[str, ...]:
        """Stored names of the given tensors of the model, each once, in order."""
        return tuple(dict.fromkeys(name for tensor in model for name in self.source(tensor, "").names()))

    def export(self, tensors: Tensors, declare: Callable[[str], TensorDecl]) -> dict[str, Read]:
        """The model's tensors as the checkpoint holds them: stored name -> what to read and write.

        Args:
            tensors: The model's tensors by name (``path.field``).
            declare: Where the logical axes lie in each of them.

        Raises:
            PlanError: A field cannot be brought into the stored form.
            CheckpointError: A stored tensor needs one of the model's that is not given.
        """
        placed: dict[str, TensorDecl] = {}
        for name in tensors:
            placed |= self.source(name, "").declarations(declare(name))
        inverse = self.inverse()
        return {stored: inverse.source(stored, "").plan(decl, {}, tensors) for stored, decl in placed.items()}

    def unexpected(self, available: Iterable[str], used: Collection[str]) -> list[str]:
        """Stored names that nothing used and that are not to be ignored, sorted."""
        patterns = [re.compile(pattern) for pattern in self.ignore]
        return sorted(
            name for name in available if name not in used and not any(pattern.fullmatch(name) for pattern in patterns)
        )

    def _tied(self, path: str) -> list[str]:
        return [other for group in self.ties if path in group for other in group if other != path]


def choose(maps: Sequence[WeightMap], wanted: Sequence[tuple[str, str]], available: Collection[str]) -> WeightMap:
    """The map under which a checkpoint holds most of the wanted ``(module path, field)`` pairs; the first of equals.

    For architectures whose checkpoints come in several layouts (experts fused or one by one, with or without a prefix).
    """
    return max(maps, key=lambda one: sum(one.has(path, name, available) for path, name in wanted))
