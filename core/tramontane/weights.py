# SPDX-License-Identifier: Apache-2.0
"""What a model asks to have: matrices, vectors, constants, caches. And what it gets: storages.

These are the handles that model code and ops hold. While a model is being built they only say what is wanted (path,
shape, sharded axis, uses); the plan decides how each is stored; loading fills them. They choose nothing themselves.

Legend: O outputs, I inputs, X experts, G key/value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from attrs import Factory, define, field, frozen
from torch import Tensor

from tramontane.cache.planes import gather, write
from tramontane.errors import PlanError
from tramontane.tensors.ranges import AxisRanges
from tramontane.tensors.shard import Cut, axis_ranges

if TYPE_CHECKING:
    from tramontane.cache.spec import CacheSpec
    from tramontane.schemes import Scheme

Split = Literal["out", "in", "expert", "vocab"]
"""The axis along which workers share a weight. ``vocab`` cuts the outputs too, into parts that need not be equal."""


@frozen
class Part:
    """One matrix of a checkpoint that became part of a (perhaps fused) matrix of the model."""

    path: str
    """Module path in the checkpoint's canonical names: ``model.layers.0.self_attn.q_proj``."""
    out_features: int
    cut: Cut | None = None
    """Which of the checkpoint's outputs these are; ``None`` for all."""


class Stored(Protocol):
    """A matrix in a backend's layout. The backend chose the layout for (schemes, shape, uses) and owns its kernels."""

    layout: str

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        ...

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields of one part (see :mod:`tramontane.schemes`)."""
        ...

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The exact canonical fields of one part, for export, merging and re-quantization."""
        ...

    def dequantize(self) -> Tensor:
        """The whole matrix as floating point: [O, I], or [X, O, I]."""
        ...

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the matrix, for embeddings: [n, I]."""
        ...

    def expert(self, index: int) -> Tensor:
        """One matrix of a stack as floating point: [O, I]."""
        ...


@runtime_checkable
class LaidOut(Protocol):
    """A storage whose memory can be kept in a file, as it is, and mapped from there."""

    def laid_out(self, part: int) -> Mapping[str, Tensor]:
        """Everything that one part holds; memory of a layout as :func:`tramontane.saved.words.as_words` gives it."""
        ...

    def adopt(self, part: int, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`laid_out` gave, in place of ``fill``. The tensors may be views of a file.

        Raises:
            CheckpointError: They do not fit the layout.
        """
        ...


@define(eq=False)
class Matrix:
    """One logical matrix [O, I] (or one per expert, [X, O, I]) made of parts stacked along O."""

    path: str
    parts: tuple[Part, ...]
    in_features: int
    experts: int | None = None
    split: Split | None = None
    """The axis along which ranks share it; ``None`` is replicated."""
    uses: set[str] = field(factory=lambda: {"linear"})
    """``linear``, ``rows`` (embedding look-up): a tied embedding has both. ``experts``: a stack, one matrix per expert.
    ``router``: small, decides between near ties, so never worth quantizing. ``absorbed``: used along both axes, so
    always dense."""
    stored: Stored | None = field(default=None, repr=False)
    schemes: tuple[Scheme, ...] = ()
    """One per part, set by the plan."""
    cuts: Mapping[str, Cut] = field(factory=dict)
    """Axes ``in`` and ``expert`` of which this worker holds a part; the other sizes are those of what it holds."""

    def stored_shape(self, part: Part) -> tuple[int, ...]:
        """Shape of a part in the checkpoint, before it is cut."""
        outputs = part.out_features if part.cut is None else part.cut.size
        inputs = self.cuts["in"].size if "in" in self.cuts else self.in_features
        experts = self.cuts["expert"].size if "expert" in self.cuts else self.experts
        return (outputs, inputs) if experts is None else (experts, outputs, inputs)

    def ranges(self, part: Part) -> AxisRanges:
        """What is read of a part; empty for all of it."""
        return axis_ranges({**self.cuts, **({} if part.cut is None else {"out": part.cut})})

    @property
    def out_features(self) -> int:
        """O: the sum over parts."""
        return sum(part.out_features for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """[O, I] or [X, O, I]."""
        base = (self.out_features, self.in_features)
        return base if self.experts is None else (self.experts, *base)

    def storage(self) -> Stored:
        """The storage; an error while the matrix is not loaded."""
        if self.stored is None:
            raise PlanError(f"{self.path} was used before it was loaded")
        return self.stored

    def dequantize(self) -> Tensor:
        """See :meth:`Stored.dequantize`."""
        return self.storage().dequantize()

    def rows(self, ids: Tensor) -> Tensor:
        """See :meth:`Stored.rows`."""
        return self.storage().rows(ids)

    def expert(self, index: int) -> Tensor:
        """See :meth:`Stored.expert`."""
        return self.storage().expert(index)


@frozen
class Source:
    """One tensor of the checkpoint that fills (a range of) a :class:`Param`."""

    path: str
    field: str
    shape: tuple[int, ...]
    cuts: Mapping[str, Cut] = Factory(dict)
    """Logical axes (``expert``, ``out``) of which this is a part."""

    @property
    def ranges(self) -> AxisRanges:
        """What is read; empty for all."""
        return axis_ranges(self.cuts)


@define(eq=False)
class Param:
    """A plain tensor that is never quantized: norm weights, biases, sinks. Several sources are joined along the last
    axis."""

    path: str
    sources: tuple[Source, ...]
    dtype: torch.dtype
    offset: float = 0.0
    """Added once while loading (Gemma stores norm weights minus one)."""
    split: Split | None = None
    zero: bool = False
    """Another worker adds this one's share to a sum: here it counts as zeros."""
    value: Tensor | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the joined tensor."""
        first = self.sources[0].shape
        return (*first[:-1], sum(source.shape[-1] for source in self.sources)) if first else first

    @property
    def tensor(self) -> Tensor:
        """The loaded tensor."""
        if self.value is None:
            raise PlanError(f"{self.path} was used before it was loaded")
        return self.value


@define(eq=False)
class Constant:
    """A tensor computed from the configuration: rope tables, masks. Equal keys share one tensor."""

    path: str
    make: Callable[[], Tensor] = field(repr=False)
    value: Tensor | None = field(default=None, repr=False)
    device: torch.device | None = None
    """Where it lies; ``None`` leaves that to whoever loads the model."""

    @property
    def tensor(self) -> Tensor:
        """The computed tensor."""
        if self.value is None:
            raise PlanError(f"{self.path} was used before it was computed")
        return self.value


@define(eq=False)
class CacheSlot:
    """One layer's place in the paged cache. The backend sets ``planes`` once memory is budgeted.

    A plane is [blocks, block tokens, ...]: keys and values [.., G, D], or one latent [.., D], as
    :mod:`tramontane.cache.entries` codes them. A recurrent layer has
    ``states`` instead, [slots, ...] each; the loader sets them.
    """

    path: str
    spec: CacheSpec
    group: int = 0
    planes: tuple[Tensor, ...] = field(default=(), repr=False)
    states: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def block_tokens(self) -> int:
        """Tokens per block."""
        return int(self.planes[0].shape[1])

    def read(self, table_B: Tensor, first: int, last: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Contents, in ``dtype``, for positions ``first <= p < last`` of the row whose block table is given:
        [last - first, ...]."""
        positions = torch.arange(first, last, device=table_B.device)
        size = self.block_tokens
        slots = table_B[positions // size].long() * size + positions % size
        return tuple(gather(plane, slots, dtype) for plane in self.planes)

    def write(self, slots_T: Tensor, *news: Tensor) -> None:
        """Store one tensor [T, ...] per plane at the step's slots."""
        write(self.planes, slots_T, news)
