# SPDX-License-Identifier: Apache-2.0
"""What a backend is, and the storages that any backend may fall back to.

A backend owns a device: it chooses layouts for weights, offers kernels for ops, allocates the cache and lowers tapes.
It knows schemes (how weights are coded), never formats (how files spell them) and never models.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.build.budget import OWN_DEVICE, SHARED_HOST, CacheLimits
from tramontane.cache.planes import make_planes
from tramontane.errors import PlanError
from tramontane.ops import KernelMaker, Op
from tramontane.sampler.drawing import draw_rows
from tramontane.schemes import Dense
from tramontane.tape.ir import Tape
from tramontane.tape.program import Program
from tramontane.tape.rules import CORE_RULES, Rule
from tramontane.weights import Matrix, Stored

if TYPE_CHECKING:
    from tramontane.cache.spec import CacheLayout
    from tramontane.rows import Fill
    from tramontane.sampler.select import Knobs
    from tramontane.sampler.state import Path
    from tramontane.weights import CacheSlot


class Runnable(Protocol):
    """A lowered tape."""

    def run(self, ctx: Ctx) -> tuple[Tensor, ...]:
        """Run one step; results may be reused by the next run."""
        ...


@frozen
class IsqType:
    """The type that a plain number of bits means on a backend, and what it costs."""

    name: str
    """As ``--quant`` would name it."""
    bits_per_weight: float
    """Stored bits per weight, scales included: the memory, and where memory limits speed, the time of a token."""


K_TYPES: Mapping[int, IsqType] = {
    2: IsqType("q2k", 2.625),
    3: IsqType("q3k", 3.4375),
    4: IsqType("q4k", 4.5),
    5: IsqType("q5k", 5.5),
    6: IsqType("q6k", 6.5625),
    8: IsqType("q8_0", 8.5),
}
"""The most exact types per bit; what backends answer that have no types of their own."""


@frozen
class Padding:
    """Sizes that the steps of a backend are padded to, so that they can be replayed.

    A step of T tokens has ``min(T, rows + 1)`` rows and as many logit rows: one graph per size then serves decoding,
    prompts and any mixture.
    """

    tokens: tuple[int, ...]
    """In ascending order."""
    rows: int
    """Most sequences of a step."""
    any_draw: bool = False
    """Whether the backend's draw is the same work whatever paths the rows take, so that one recording serves all."""

    def of(self, tokens: int, outputs: int) -> tuple[int, int, int] | None:
        """T, R and L to pad a step to; ``None`` for one that is larger than all sizes, or has more logit rows."""
        at = bisect_left(self.tokens, tokens)
        if at == len(self.tokens):
            return None
        size = self.tokens[at]
        rows = min(size, self.rows + 1)
        return None if outputs > rows else (size, rows, rows)


class Replays(Protocol):
    """Runs work that repeats over memory at fixed addresses: by its own code at first, then recorded and replayed."""

    padding: Padding

    def run(self, key: Hashable, work: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Run ``work`` once, one way or the other; work of one key is always the same but for the memory's content.

        The results may be overwritten by the next run.
        """
        ...


class Backend(Protocol):
    """What runs a model on one kind of device."""

    name: str

    @property
    def device(self) -> torch.device:
        """Where tensors lie that no place is told of."""
        ...

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rewrite rules to apply to a tape before lowering, in order."""
        ...

    @property
    def isq_types(self) -> Mapping[int, IsqType]:
        """The cheapest good type for each number of bits that ``--quant`` may ask for."""
        ...

    @property
    def cache_limits(self) -> CacheLimits:
        """What caches it can make."""
        ...

    @classmethod
    def probe(cls) -> str | None:
        """Why this backend cannot run here; ``None`` if it can."""
        ...

    def at(self, path: str) -> Backend:
        """What runs a module of the model; itself, but for a backend that is several."""
        ...

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """The activations' type for a checkpoint stored in ``stored`` when the user asks for ``auto``."""
        ...

    def store(self, matrix: Matrix, dtype: torch.dtype) -> Stored:
        """Choose a layout for the matrix's schemes, shape and uses, and make an empty storage."""
        ...

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """Kernels for an op, best first, with their names."""
        ...

    def make_cache(self, layout: CacheLayout, slots: Sequence[CacheSlot], blocks: int) -> None:
        """Allocate the paged cache and set each slot's planes."""
        ...

    def free_memory(self) -> int:
        """Bytes that weights, arena and cache may still take."""
        ...

    def lower(self, tape: Tape, max_tokens: int, max_outputs: int) -> Runnable:
        """Turn a rewritten tape into something that runs."""
        ...

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        """What records and replays whole steps of this backend; ``None`` where that gains nothing."""
        ...

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Draw tokens from finished logits; see :data:`tramontane.sampler.drawing.Draw`."""
        ...

    def fill(self) -> Fill | None:
        """What builds the batches of replayed steps on the device, from a record of their rows; ``None``: the host
        does, and they are copied."""
        ...

    def guard(self) -> AbstractContextManager[Any]:
        """Around everything that runs on the device: makes it the current one."""
        ...

    def peak(self, work: Callable[[], object]) -> int | None:
        """Run ``work`` and tell how many bytes of device memory it took at most beside what was held before;
        ``None`` where that cannot be told."""
        ...


@define(eq=False)
class DenseStored:
    """Floating-point tensors [O, I] (or [X, O, I]), one per part or one for all.

    On the host a part whose stored type is already right is not copied: it stays the mapped file. Elsewhere the parts
    are joined, so that they are one product.
    """

    matrix: Matrix
    dtype: torch.dtype
    device: torch.device
    layout: str = "dense"
    pieces: list[Tensor] = field(factory=list, repr=False)
    """The parts in order, or one tensor that holds them all."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return torch.Size(self.matrix.shape).numel() * self.dtype.itemsize

    @property
    def weight(self) -> Tensor:
        """The one tensor of a matrix that is not kept in pieces."""
        if len(self.pieces) != 1:
            raise PlanError(f"{self.matrix.path} is kept in {len(self.pieces)} pieces")
        return self.pieces[0]

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the weight of one part."""
        new = fields["weight"]
        if self.device.type == "cpu":
            self.pieces.append(new.to(self.dtype).contiguous())
            return
        if not self.pieces:
            self.pieces.append(torch.empty(self.matrix.shape, dtype=self.dtype, device=self.device))
        self._part(part).copy_(new)

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The weight of one part, a view."""
        return {"weight": self._part(part)}

    def dequantize(self) -> Tensor:
        """All parts joined."""
        return self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces, dim=-2)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by index."""
        return self.weight[ids]

    def expert(self, index: int) -> Tensor:
        """One matrix of the stack."""
        each = self.expert_pieces(index)
        return each[0] if len(each) == 1 else torch.cat(each)

    def expert_pieces(self, index: int) -> list[Tensor]:
        """One matrix of the stack as it is kept: views, one below the other."""
        return [piece[index] for piece in self.pieces]

    def _part(self, part: int) -> Tensor:
        if len(self.pieces) > 1:
            return self.pieces[part]
        start = sum(p.out_features for p in self.matrix.parts[:part])
        return self.pieces[0].narrow(-2, start, self.matrix.parts[part].out_features)


@define(eq=False)
class CanonicalStored:
    """The canonical fields of each part as they are: small, exact, and slow to use, since every use dequantizes."""

    matrix: Matrix
    dtype: torch.dtype
    device: torch.device
    layout: str = "canonical"
    fields: dict[int, dict[str, Tensor]] = field(factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes held, from the schemes."""
        return sum(scheme.nbytes(self._shape(i)) for i, scheme in enumerate(self.matrix.schemes))

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Keep the canonical fields of one part."""
        self.fields[part] = {name: tensor.to(self.device) for name, tensor in fields.items()}

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The canonical fields of one part."""
        return self.fields[part]

    def dequantize(self) -> Tensor:
        """All parts as floating point, joined along O."""
        parts = [
            scheme.dequantize(self.fields[i], self._shape(i)).to(self.dtype)
            for i, scheme in enumerate(self.matrix.schemes)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by index: only these are dequantized."""
        (scheme,) = self.matrix.schemes
        return scheme.gather(self.fields[0], self._shape(0), ids).to(self.dtype)

    def expert(self, index: int) -> Tensor:
        """One matrix of the stack: only this one is dequantized."""
        parts = [
            scheme.dequantize({name: one[index] for name, one in self.fields[i].items()}, self._shape(i)[1:])
            for i, scheme in enumerate(self.matrix.schemes)
        ]
        return torch.cat(parts, dim=-2).to(self.dtype)

    def _shape(self, part: int) -> tuple[int, ...]:
        base = (self.matrix.parts[part].out_features, self.matrix.in_features)
        return base if self.matrix.experts is None else (self.matrix.experts, *base)


@define(eq=False)
class HostBackend:
    """What backends of plain torch share: dense or canonical storage, cache planes, the interpreter for tapes."""

    device: torch.device = field(factory=lambda: torch.device("cpu"))
    rules: tuple[Rule, ...] = CORE_RULES
    isq_types: Mapping[int, IsqType] = field(default=K_TYPES, repr=False)
    cache_limits: CacheLimits = field(init=False, repr=False)

    @cache_limits.default
    def _limits_of_device(self) -> CacheLimits:
        return SHARED_HOST if self.device.type == "cpu" else OWN_DEVICE

    @classmethod
    def probe(cls) -> str | None:
        """Plain torch runs everywhere."""
        return None

    def at(self, path: str) -> Any:
        """Itself: it runs all of a model."""
        return self

    def store(self, matrix: Matrix, dtype: torch.dtype) -> Stored:
        """Dense where every part is, canonical otherwise."""
        dense = all(isinstance(scheme, Dense) for scheme in matrix.schemes)
        return (DenseStored if dense else CanonicalStored)(matrix, dtype, self.device)

    def make_cache(self, layout: CacheLayout, slots: Sequence[CacheSlot], blocks: int) -> None:
        """Pages shared by the layers of all groups, seen as typed planes by each layer."""
        planes = make_planes(layout, blocks, self.device)
        for slot in slots:
            slot.group, slot.planes = layout.layers[slot.path].group, planes.get(slot.path, ())

    def lower(self, tape: Tape, max_tokens: int, max_outputs: int) -> Runnable:
        """The Python interpreter."""
        return Program(tape, self.device, max_tokens, max_outputs)

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        """Nothing: every step runs by its program."""
        return None

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """By torch."""
        return draw_rows(path, logits_RV, knobs, uniform_R)

    def fill(self) -> Fill | None:
        """Nothing."""
        return None

    def guard(self) -> AbstractContextManager[Any]:
        """The current CUDA device is the backend's; elsewhere there is nothing to choose."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def peak(self, work: Callable[[], object]) -> int | None:
        """As torch's allocator counts on CUDA devices; elsewhere it is not measured."""
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return int(torch.cuda.max_memory_allocated(self.device) - before)
