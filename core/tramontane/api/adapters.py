# SPDX-License-Identifier: Apache-2.0
"""``llm.adapters``: what a running model has loaded, and loading and unloading while it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from tramontane.adapters import AdapterTable, LoadedAdapter, Ready
    from tramontane.engine import EngineCore, EngineThread
    from tramontane.load import LoadedModel
    from tramontane.progress import Progress
    from tramontane.requests import AdapterRef


class Adapters(ABC):
    """The adapters of one model, by name. Every method may be called from any thread; requests go on meanwhile.

    >>> llm.adapters.load("sql", "path-or-hub-id")
    >>> llm.generate("SELECT", adapter="sql").text
    """

    @abstractmethod
    def loaded(self) -> tuple[LoadedAdapter, ...]:
        """What is loaded, in the order of loading."""

    @abstractmethod
    def load(self, name: str, reference: str, *, progress: Progress | None = None) -> LoadedAdapter:
        """Load an adapter; one of that name is replaced, for requests that come from then on.

        Args:
            name: What requests call it.
            reference: A folder, or a repository on the hub.
            progress: Is told how a download goes.

        Raises:
            HubError: The reference cannot be resolved to files.
            AdapterError: The files are damaged, do not fit the model, or as many as can be are loaded.
            OutOfMemoryError: It does not fit.
            EngineClosedError: The model was closed.
        """

    @abstractmethod
    def unload(self, name: str) -> None:
        """Forget an adapter. Requests that use it end as they would have; its memory is free after them.

        Raises:
            RequestError: None of that name is loaded.
            EngineClosedError: The model was closed.
        """

    def find(self, name: str) -> AdapterRef:
        """What a request carries to use an adapter.

        Raises:
            RequestError: None of that name is loaded.
        """
        from tramontane.adapters import reference_to

        return reference_to(name, {one.name: one for one in self.loaded()})

    def __iter__(self) -> Iterator[str]:
        return iter([one.name for one in self.loaded()])

    def __len__(self) -> int:
        return len(self.loaded())

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self.loaded())


@define(eq=False)
class LocalAdapters(Adapters):
    """Those of a model in this process."""

    _model: LoadedModel
    _engine: EngineThread
    _changing: Lock = field(factory=Lock, init=False, repr=False)
    """One change at a time."""

    def loaded(self) -> tuple[LoadedAdapter, ...]:
        """As :meth:`Adapters.loaded`."""
        return self._table.loaded()

    def load(self, name: str, reference: str, *, progress: Progress | None = None) -> LoadedAdapter:
        """As :meth:`Adapters.load`."""
        from tramontane.load.adapters import announce, check_memory, find_adapter

        model, table = self._model, self._table
        with self._changing:
            table.check_room(name)
            found = find_adapter(reference, table, model.options, model.plugins, progress)
            check_memory(found, model.backend)
            ready = found.ready(table.dtype)
            made = self._engine.call(lambda core: self._put(core, name, ready)).result()
        announce(made)
        return made

    def unload(self, name: str) -> None:
        """As :meth:`Adapters.unload`."""
        with self._changing:
            self._table.find(name)
            self._engine.call(lambda core: self._drop(core, name)).result()

    @property
    def _table(self) -> AdapterTable:
        return self._model.adapters

    def _put(self, core: EngineCore, name: str, ready: Ready) -> LoadedAdapter:
        from tramontane.load.program import capture_adapted

        model, table = self._model, self._table
        self._drop(core, name)
        changed = set(table.banks)
        made = table.put(name, ready)
        if changed != set(table.banks):
            capture_adapted(model.runner, model.blueprint, model.backend, model.plugins, model.options)
        return made

    def _drop(self, core: EngineCore, name: str) -> None:
        gone = self._table.drop(name)
        if gone is not None:
            core.departures.add(gone.generation, lambda: self._table.release(gone.generation))
            core.see_off()
