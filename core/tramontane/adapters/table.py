# SPDX-License-Identifier: Apache-2.0
"""The adapters that one model has loaded, by name.

Each has a column in the mix of batches and a generation, a number that no other adapter of the process ever had: what
is cached under it can never be taken for another's. An adapter that was unloaded keeps both until nothing uses it.

Names are looked up from any thread; everything else happens between steps, in the thread that runs them.
"""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Callable, Mapping

import torch
from attrs import define, field, frozen

from tramontane.adapters.bank import AdapterBank, Piece
from tramontane.adapters.fitting import Fitted, Targets
from tramontane.build.blueprint import Blueprint
from tramontane.errors import AdapterError, RequestError
from tramontane.ops import AddAdapted, AttendLatent, AttendLatentAdapted, BoundOp, Linear, Op
from tramontane.requests import AdapterRef

NONE = "none"
"""What people say for the model as it is, so no adapter can be called so."""
MAX_NAME = 256
"""Characters of a name."""

_generations = itertools.count(1)


@frozen(kw_only=True)
class LoadedAdapter:
    """What is to be known of a loaded adapter."""

    name: str
    kind: str
    reference: str
    """The path or hub id it was loaded by."""
    base: str | None
    """The model it says it was made for."""
    rank: int
    """The largest of its ranks."""
    modules: int
    """Linear layers that it changes."""
    nbytes: int
    generation: int
    loaded: float = field(factory=time.time)
    """``time.time()`` when it was loaded."""
    column: int = field(repr=False)


def reference_to(name: str, loaded: Mapping[str, LoadedAdapter]) -> AdapterRef:
    """What a request carries to use an adapter.

    Raises:
        RequestError: None of that name is loaded.
    """
    found = loaded.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(str(name), loaded, n=1)
        known = f"loaded: {', '.join(loaded)}" if loaded else "none is loaded: give --adapter NAME=PATH"
        raise RequestError(f"there is no adapter {name!r}", hint=f"did you mean {near[0]}?" if near else known)
    return AdapterRef(found.name, found.generation, found.column)


@frozen(eq=False, kw_only=True)
class Ready:
    """An adapter in memory that fits a model."""

    kind: str
    reference: str
    base: str | None
    fitted: Fitted
    pieces: Mapping[str, Mapping[int, Piece]]
    """Matrix path -> part -> its pair."""


@define(eq=False)
class AdapterTable:
    """The loaded adapters of one model and where they are kept."""

    targets: Targets
    blueprint: Blueprint
    columns: int
    """Most adapters at a time."""
    bind: Callable[[BoundOp], None]
    """Chooses the kernel of an op."""
    banks: dict[str, AdapterBank] = field(factory=dict, init=False)
    """By path of the matrix."""
    _named: dict[str, LoadedAdapter] = field(factory=dict, init=False)
    _held: dict[int, LoadedAdapter] = field(factory=dict, init=False)
    """By generation; those that were unloaded and are still in use as well."""

    @property
    def nbytes(self) -> int:
        """Bytes of all banks."""
        return sum(bank.nbytes for bank in self.banks.values())

    @property
    def dtype(self) -> torch.dtype:
        """Type that adapters are kept in."""
        return self.blueprint.dtype

    # --- from any thread ----------------------------------------------------------------------------------------------

    def loaded(self) -> tuple[LoadedAdapter, ...]:
        """Those that requests may choose, in the order of loading."""
        return tuple(self._named.values())

    def find(self, name: str) -> AdapterRef:
        """What a request carries to use an adapter.

        Raises:
            RequestError: None of that name is loaded.
        """
        return reference_to(name, self._named)

    def check(self, ref: AdapterRef) -> None:
        """Refuse a request whose adapter has gone.

        Raises:
            RequestError: It was unloaded, or another was loaded under its name.
        """
        found = self._named.get(ref.name)
        if found is None or found.generation != ref.generation:
            raise RequestError(f"the adapter {ref.name!r} was unloaded meanwhile")

    # --- between steps ------------------------------------------------------------------------------------------------

    def check_room(self, name: str) -> None:
        """Whether one more can be loaded, under this name.

        Raises:
            AdapterError: All columns are in use, or the name cannot be one.
        """
        if not (0 < len(name) <= MAX_NAME and name.isprintable()) or name == NONE:
            raise AdapterError(f"an adapter cannot be called {name[:MAX_NAME]!r}", hint="choose another name")
        if len(self._held) >= self.columns:
            raise AdapterError(
                f"no room for the adapter {name!r}: {len(self._held)} are loaded, or unloaded and still in use",
                hint="unload one, or load the model with a larger max_adapters",
            )

    def put(self, name: str, ready: Ready) -> LoadedAdapter:
        """Take an adapter into the banks. The one that had the name before is to be dropped first.

        Raises:
            AdapterError: All columns are in use; nothing has changed then.
        """
        self.check_room(name)
        taken = {one.column for one in self._held.values()}
        column = next(column for column in range(self.columns) if column not in taken)
        for path, pieces in ready.pieces.items():
            self._bank(path).put(column, pieces)
        made = LoadedAdapter(
            name=name,
            kind=ready.kind,
            reference=ready.reference,
            base=ready.base,
            rank=ready.fitted.rank,
            modules=sum(len(pieces) for pieces in ready.pieces.values()),
            nbytes=ready.fitted.nbytes,
            generation=next(_generations),
            column=column,
        )
        self._held[made.generation] = self._named[name] = made
        return made

    def drop(self, name: str) -> LoadedAdapter | None:
        """No request finds the adapter any more; it stays in its banks until it is released."""
        return self._named.pop(name, None)

    def release(self, generation: int) -> None:
        """Free what a dropped adapter holds; nothing may use it any more."""
        gone = self._held.pop(generation)
        for bank in self.banks.values():
            bank.drop(gone.column)

    def _bank(self, path: str) -> AdapterBank:
        """The bank of a matrix; with the first adapter that changes the matrix, the ops that use it get to know it."""
        found = self.banks.get(path)
        if found is None:
            blueprint, matrix = self.blueprint, self.targets.matrices[path]
            found = self.banks[path] = AdapterBank(matrix, self.dtype, blueprint.runtime.device)
            for bound in [one for one in blueprint.ops if any(weight is matrix for weight in one.weights)]:
                if isinstance(bound.op, Linear):
                    self._adapt(bound, AddAdapted(), found)
                elif isinstance(bound.op, AttendLatent):
                    self._adapt(bound, AttendLatentAdapted(bound.op), *bound.weights, found)
                    bound.replaced = True
        return found

    def _adapt(self, bound: BoundOp, op: Op, *weights: object) -> None:
        bound.adapted = BoundOp(op, weights, self.blueprint.runtime, path=bound.path)
        self.bind(bound.adapted)
        self.blueprint.ops.append(bound.adapted)
