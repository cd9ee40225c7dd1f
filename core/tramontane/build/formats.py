# SPDX-License-Identifier: Apache-2.0
"""What a stored quantization format tells the planner: how one weight lies in the checkpoint, and which scheme it is.

A format is asked for every matrix. It answers with the fields it stores (their names and where the logical axes lie in
them) and a function that turns what was read into the canonical fields of a scheme. Names, fusions, stacked experts and
shards are the weight map's and the shard's business; a format never sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config
from tramontane.errors import CheckpointError
from tramontane.schemes import Dense, Fields, Scheme
from tramontane.tensors import Axis, TensorDecl

Shape = tuple[int, ...]

ROWS = TensorDecl("weight", {"out": Axis(0), "in": Axis(1)})
"""A plain matrix, [O, I]."""


Canonical = Callable[[Mapping[str, Tensor], Shape], Fields]
"""Tensors as stored, by field, and the logical shape of what was read -> canonical fields of a scheme."""


@frozen
class StoredTensor:
    """What is known of a stored tensor before it is read."""

    name: str
    dtype: torch.dtype
    shape: Shape
    encoding: str = ""


class Lookup(Protocol):
    """What a format may ask about the module it is asked for."""

    def stored(self, field: str) -> StoredTensor | None:
        """The first tensor in the checkpoint that carries a field of the module; ``None`` if there is none."""
        ...

    def values(self, field: str) -> tuple[Tensor, ...]:
        """The values of a small field that says how the others are stored: bits, group size, a description as text.

        One tensor per stored module (stacked experts may be stored one by one); empty if there is none.

        Raises:
            CheckpointError: The field is too large to be read while planning.
        """
        ...


@frozen
class FormatPart:
    """How one matrix is stored.

    Attributes:
        scheme: What it is.
        fields: Field name in the checkpoint -> where the logical axes of [O, I] lie in it.
        canonical: Turns the tensors that were read, by field, into the canonical fields of the scheme. The shape is the
            logical one of what was read. For stacked experts every tensor has a leading axis, and so must every result.
        made: Fields that the format made while planning, which are cut like those that are read: a number per expert,
            say, from descriptions of different lengths. For stacked experts they have the leading axis already.
        known: Further fields of the module that need no reading: they were read while planning, or say nothing that
            is used. Left-over tensors are an error, so that nothing is ignored by accident.
    """

    scheme: Scheme
    fields: Mapping[str, TensorDecl]
    canonical: Canonical = field(repr=False)
    made: Mapping[str, Tensor] = field(factory=dict, repr=False)
    known: tuple[str, ...] = ()


class StoredFormat(Protocol):
    """A format found in a checkpoint, bound to its settings."""

    name: str

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """How the matrix of a module is stored; ``None`` if this module is not stored in the format.

        Args:
            path: The module's canonical path.
            shape: Its logical shape, [O, I] or [X, O, I].
            lookup: The module's stored tensors.
        """
        ...


class QuantFormat(Protocol):
    """What the ``format`` of a :class:`~tramontane.records.QuantFormatSpec` is: makes bound formats."""

    def detect(self, checkpoint: Checkpoint) -> StoredFormat | None:
        """The format bound to a checkpoint that is stored in it; ``None`` for any other checkpoint."""
        ...


class DenseFormat:
    """Floating-point matrices: what is left when no other format claims a module."""

    name = "dense"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`StoredFormat.part`.

        Raises:
            CheckpointError: The stored numbers are not floating point, so a format is missing that knows them.
        """
        stored = lookup.stored("weight")
        if stored is None:
            return None
        if stored.encoding or not stored.dtype.is_floating_point or stored.dtype.itemsize < 2:
            what = stored.encoding or str(stored.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{stored.name} is stored as {what}, and no installed quantization format claims it",
                hint="`tramontane plugins` lists what is installed; the format's plugin may be missing or have failed",
            )
        return FormatPart(Dense(stored.dtype), {"weight": ROWS}, _plain)


def _plain(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    return tensors


def detect_formats(checkpoint: Checkpoint, formats: Any) -> list[StoredFormat]:
    """All formats that the checkpoint uses, then the dense one.

    Raises:
        CheckpointError: The configuration states a quantization that no installed format knows.
    """
    found = [bound for made in formats if (bound := made.detect(checkpoint)) is not None]
    stated = quantization_config(checkpoint.config)
    if stated and not found:
        method = stated.get("quant_method")
        raise CheckpointError(
            f"{checkpoint.path} is quantized by {method or 'a method without a name'}, "
            "which no installed quantization format knows",
            hint="`tramontane plugins` lists what is installed; the format's plugin may be missing or have failed",
        )
    return [*found, DenseFormat()]
