# SPDX-License-Identifier: Apache-2.0
"""The adapters of a model whose engine is in another process: known here by their records, loaded and kept there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from tramontane.api.adapters import Adapters
from tramontane.child.codec import unpack_adapter
from tramontane.child.process import ChildProcess

if TYPE_CHECKING:
    from tramontane.adapters import LoadedAdapter
    from tramontane.progress import Progress


@define(eq=False)
class ChildAdapters(Adapters):
    """As of :class:`Adapters`. What is known here follows the answer to each change."""

    _process: ChildProcess
    _loaded: tuple[LoadedAdapter, ...] = ()

    def loaded(self) -> tuple[LoadedAdapter, ...]:
        """As :meth:`Adapters.loaded`."""
        return self._loaded

    def load(self, name: str, reference: str, *, progress: Progress | None = None) -> LoadedAdapter:
        """As :meth:`Adapters.load`."""
        answer = self._process.ask("load_adapter", {"name": name, "reference": reference}, progress)
        self.note(answer)
        return next(one for one in self._loaded if one.name == name)

    def unload(self, name: str) -> None:
        """As :meth:`Adapters.unload`."""
        self.note(self._process.ask("unload_adapter", {"name": name}))

    def note(self, told: object) -> None:
        """Take over what the process says is loaded."""
        if not isinstance(told, list):
            raise TypeError(f"the loaded adapters are a list, not {type(told).__name__}")
        self._loaded = tuple(map(unpack_adapter, told))
