# SPDX-License-Identifier: Apache-2.0
"""Which model answers: one of the host's, by its name, or any other that the person names by its reference.

One is in memory at a time: what is loaded next gets the room of what answered before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define

from tramontane.errors import RequestError

if TYPE_CHECKING:
    from tramontane.api import LLM
    from tramontane.host import Host, ModelCard
    from tramontane.progress import Progress


@define
class Models:
    """The models that a chat may go on with."""

    host: Host
    settings: Mapping[str, Any]
    """What a model is loaded with that the host does not know yet."""
    progress: Callable[[], AbstractContextManager[Progress]]
    """Opens what shows how loading goes."""

    def cards(self) -> tuple[ModelCard, ...]:
        """Every model the host knows; adapters are no models here."""
        return tuple(card for card in self.host.models() if card.parent is None)

    def names(self) -> tuple[str, ...]:
        """What they are called, by aliases too."""
        return tuple(name for card in self.cards() for name in (card.name, *card.aliases))

    def load(self, name: str | None = None) -> LLM:
        """The running model of that name or alias, loaded first if need be; ``None`` is the first.

        Raises:
            TramontaneError: There is none, or it cannot be loaded.
        """
        with self.progress() as progress:
            return self.host.blocking(name, progress)

    def switch(self, before: str, name: str) -> LLM:
        """Load a model in place of the one that answers now. Its files are fetched before that one is let go.

        Args:
            before: The name of the model that answers now.
            name: A name or alias of the host's, or a folder, a file or a hub id.

        Raises:
            RequestError: Ctrl-C ended the loading.
            TramontaneError: It cannot be loaded. The one before may have been let go.
        """
        wanted = str(Path(name).expanduser()) if name.startswith("~") else name
        try:
            if wanted not in self.names():
                with self.progress() as progress:
                    self.host.fetch(wanted, progress, **self.settings)
                self.host.add(wanted, **self.settings)
            if self.host.model(wanted).name != before:
                asyncio.run(self.host.unload(before))
            return self.load(wanted)
        except KeyboardInterrupt:
            raise RequestError(f"loading {name} was stopped", hint=f"{before} answers on") from None
