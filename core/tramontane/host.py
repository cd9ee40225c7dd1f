# SPDX-License-Identifier: Apache-2.0
"""``Host``: the named models of one process. It is all a frontend sees; a frontend never meets an engine.

Models are configured first and loaded when somebody wants them. Every method may be called from any thread or event
loop; loading never blocks the loop that waits for it.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field

from tramontane.errors import ConfigError, EngineClosedError, TramontaneError, UnknownNameError
from tramontane.host_records import FrontendOptions, ModelCard, ModelState

if TYPE_CHECKING:
    from pathlib import Path

    from tramontane.api import LLM, AsyncLLM
    from tramontane.plugins import Plugins
    from tramontane.progress import Progress

__all__ = ["DEFAULT", "FrontendOptions", "Host", "ModelCard", "ModelState"]

_log = logging.getLogger(__name__)

METRICS_EVERY_S = 2.0
"""Observers get a reading of a model's metrics at most this often."""
MOST_DEATHS, DEATHS_S = 3, 60.0
"""An engine's process that has died so often within so many seconds is not started again until somebody asks."""

DEFAULT = "default"
"""The name by which the first model is always found."""


@define(eq=False)
class _Slot:
    """One configured model."""

    name: str
    reference: str
    settings: Mapping[str, Any]
    created: float = field(factory=time.time)
    llm: AsyncLLM | None = None
    loading: bool = False
    error: TramontaneError | None = None
    adapters: Mapping[str, str] = field(init=False)
    """Name -> reference of what it is loaded with: those of its settings, and those that came later."""
    told: float = 0.0
    deaths: deque[float] = field(factory=lambda: deque(maxlen=MOST_DEATHS))
    """``time.monotonic()`` of the last times that its engine's process ended unasked."""
    lock: threading.Lock = field(factory=threading.Lock)
    """Held while it is loaded or unloaded."""

    def __attrs_post_init__(self) -> None:
        self.adapters = dict(self.settings.get("adapters") or {})

    def as_settings(self) -> dict[str, Any]:
        """What it is loaded with."""
        return {**self.settings, "adapters": dict(self.adapters)} if self.adapters else dict(self.settings)

    @property
    def state(self) -> ModelState:
        if self.llm is not None:
            return ModelState.READY
        if self.loading:
            return ModelState.LOADING
        return ModelState.CONFIGURED if self.error is None else ModelState.FAILED


class Host:
    """Named models in one process.

    Args:
        plugins: The generation of plugins that models are loaded with; the installed ones by default.
        progress: Is told how loading goes.
        state_dir: Where frontends keep what must survive the process; without it they keep it in memory.
        apart: Run every model's engine in a process of its own: neither slows the other down, and an engine that
            crashes is started anew.
    """

    def __init__(
        self,
        plugins: Plugins | None = None,
        progress: Progress | None = None,
        *,
        state_dir: Path | None = None,
        apart: bool = False,
    ) -> None:
        self.state_dir = state_dir
        self.apart = apart
        self._plugins = plugins
        self._progress = progress
        self._slots: dict[str, _Slot] = {}
        self._aliases: dict[str, str] = {}
        self._closed = False

    @property
    def plugins(self) -> Plugins:
        """The plugins of this host."""
        if self._plugins is None:
            from tramontane.plugins import installed

            self._plugins = installed()
        return self._plugins

    # --- which models there are ---------------------------------------------------------------------------------------

    def add(self, name: str, reference: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        """Configure a model; it is loaded when it is first acquired.

        Args:
            name: What requests call it.
            reference: A folder, a file, a hub id or a name that a plugin knows; by default the name itself.
            settings: As for :class:`tramontane.LLM`.

        Raises:
            ConfigError: The name is taken.
        """
        slot = _Slot(name, os.fspath(reference if reference is not None else name), settings)
        for wanted in (name, *slot.adapters):
            self._refuse_taken(wanted)
        if name in slot.adapters:
            raise ConfigError(f"the model {name!r} has an adapter of its own name", hint="choose another name")
        self._slots[name] = slot

    def alias(self, alias: str, name: str) -> None:
        """Let a further name mean a model; an alias may be moved to another model.

        Raises:
            ConfigError: The alias is the name of a model.
            UnknownNameError: There is no such model.
        """
        if alias in self._slots or alias == DEFAULT or self._adapted(alias) is not None:
            raise ConfigError(f"{alias!r} is the name of a model, so it cannot be an alias")
        self._aliases[alias] = self._slot(name).name

    def models(self) -> tuple[ModelCard, ...]:
        """Every configured model, the default first, each with its adapters behind it."""
        return tuple(self._card(slot, adapter) for slot in self._slots.values() for adapter in (None, *slot.adapters))

    def model(self, name: str) -> ModelCard:
        """The model of that name or alias, or the adapter.

        Raises:
            UnknownNameError: There is none.
        """
        return self._card(*self._find(name))

    # --- loading and unloading ----------------------------------------------------------------------------------------

    async def acquire(self, name: str | None = None) -> AsyncLLM:
        """The running model of that name, loaded first if need be. Callers that come meanwhile wait for the same load.

        Args:
            name: A model's name or alias, or an adapter's: then requests use it unless they say otherwise; ``None`` or
                ``default`` is the first model.

        Raises:
            UnknownNameError: There is no such model.
            TramontaneError: It could not be loaded.
        """
        slot, adapter = self._find(name)
        ready = slot.llm
        llm = ready if ready is not None else await asyncio.to_thread(self._load, slot)
        return llm if adapter is None else llm.using(adapter)

    def blocking(self, name: str | None = None, progress: Progress | None = None) -> LLM:
        """As :meth:`acquire`, for callers without an event loop: it loads in their thread, so that Ctrl-C ends it.

        Args:
            name: As of :meth:`acquire`.
            progress: Is told how this loading goes, instead of the host's own.
        """
        slot, adapter = self._find(name)
        llm = (slot.llm or self._load(slot, progress)).blocking()
        return llm if adapter is None else llm.using(adapter)

    def fetch(self, reference: str | os.PathLike[str], progress: Progress | None = None, **settings: Any) -> Path:
        """Bring a model's files to this machine, unless they are here; nothing is loaded or configured.

        Raises:
            HubError: The reference cannot be resolved to files.
        """
        from tramontane.api.settings import load_options
        from tramontane.load import local_files

        told = progress or self._progress
        return local_files(os.fspath(reference), load_options(settings), self.plugins, told)

    async def load(self, name: str, reference: str | os.PathLike[str] | None = None, **settings: Any) -> AsyncLLM:
        """Configure a model (unless it is) and load it now."""
        if name not in self._slots and name not in self._aliases:
            self.add(name, reference, **settings)
        return await self.acquire(name)

    async def unload(self, name: str) -> None:
        """Stop a model and free its memory; its requests end with an error. It stays configured.

        Raises:
            UnknownNameError: There is no such model.
        """
        await asyncio.to_thread(self._unload, self._slot(name))

    async def load_adapter(self, name: str, reference: str | os.PathLike[str], model: str | None = None) -> ModelCard:
        """Load an adapter of a model, which is loaded first if need be; requests then name it like a model.

        Args:
            name: What requests call it. An adapter of the same model that has the name is replaced.
            reference: Its folder, or its id on the hub.
            model: The model's name or alias; ``None`` is the first.

        Raises:
            ConfigError: The name is taken.
            UnknownNameError: There is no such model.
            AdapterError: It does not fit the model, or its files are damaged.
        """
        slot = self._slot(model)
        self._refuse_taken(name, slot)
        llm = await self.acquire(slot.name)
        await asyncio.to_thread(llm.adapters.load, name, os.fspath(reference))
        slot.adapters = {**slot.adapters, name: os.fspath(reference)}
        return self._card(slot, name)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; requests that use it end as they would have.

        Raises:
            UnknownNameError: There is none of that name.
        """
        slot, adapter = self._find(name)
        if adapter is None:
            raise UnknownNameError(f"{name!r} is a model and no adapter", hint="unload() frees models")
        if slot.llm is not None:
            await asyncio.to_thread(slot.llm.adapters.unload, adapter)
        slot.adapters = {key: value for key, value in slot.adapters.items() if key != adapter}

    def close(self) -> None:
        """Stop every model."""
        self._closed = True
        for slot in self._slots.values():
            self._unload(slot)

    # --- what else frontends ask --------------------------------------------------------------------------------------

    def tools(self) -> tuple[str, ...]:
        """The names of the installed tool providers."""
        return self.plugins.catalogs.tool_providers.names()

    def metrics(self) -> dict[str, dict[str, float]]:
        """A reading of the counters and gauges of every loaded model, by name; observers get it too."""
        readings = {}
        for slot in self._slots.values():
            llm = slot.llm
            if llm is None:
                continue
            reading = {key: float(value) for key, value in attrs.asdict(llm.stats()).items()}
            readings[slot.name] = reading
            now = time.monotonic()
            if now - slot.told >= METRICS_EVERY_S:
                slot.told = now
                self.plugins.observers.metrics(slot.name, reading)
        return readings

    def _load(self, slot: _Slot, progress: Progress | None = None) -> AsyncLLM:
        from tramontane.api import AsyncLLM
        from tramontane.api.service import Service

        with slot.lock:
            if self._closed:
                raise EngineClosedError("the host is closed")
            if slot.llm is not None:
                return slot.llm
            slot.loading, slot.error = True, None
            try:
                told = progress or self._progress
                given = slot.reference, slot.as_settings(), self.plugins, told, slot.name
                if self.apart:
                    service = Service.apart(*given, died=partial(self._died, slot))
                else:
                    service = Service.load(*given)
                slot.llm = AsyncLLM.over(service)
            except TramontaneError as error:
                slot.error = error
                raise
            finally:
                slot.loading = False
            return slot.llm

    def _died(self, slot: _Slot, _: TramontaneError) -> None:
        """An engine's process has ended unasked: start it anew, beside whoever tells us."""
        slot.deaths.append(time.monotonic())
        often = len(slot.deaths) == MOST_DEATHS and slot.deaths[-1] - slot.deaths[0] < DEATHS_S
        threading.Thread(target=self._revive, args=(slot, often), daemon=True).start()

    def _revive(self, slot: _Slot, often: bool) -> None:
        with slot.lock:
            llm = slot.llm
            if llm is None or llm.failure is None:
                return  # it was unloaded, or loaded anew, meanwhile
            slot.llm, slot.error = None, llm.failure
        llm.close()
        if often:
            _log.error("the engine of %s died %d times within %.0f s; it waits", slot.name, MOST_DEATHS, DEATHS_S)
            return
        try:
            self._load(slot)
        except TramontaneError as failure:
            _log.error("%s cannot be started anew: %s", slot.name, failure)

    def _unload(self, slot: _Slot) -> None:
        with slot.lock:
            llm, slot.llm = slot.llm, None
        if llm is not None:
            llm.close()

    def _slot(self, name: str | None) -> _Slot:
        if not self._slots:
            raise UnknownNameError("the host has no model", hint="configure one first")
        if name is None or (name == DEFAULT and name not in self._aliases):
            return next(iter(self._slots.values()))
        slot = self._slots.get(self._aliases.get(name, name))
        if slot is None:
            raise UnknownNameError(f"there is no model {name!r}", hint=self._names(name))
        return slot

    def _find(self, name: str | None) -> tuple[_Slot, str | None]:
        """A model, and the adapter of it where the name is that one's."""
        if name is not None and name not in self._slots and name not in self._aliases:
            slot = self._adapted(name)
            if slot is not None:
                return slot, name
        return self._slot(name), None

    def _adapted(self, adapter: str) -> _Slot | None:
        """The model that has an adapter of that name."""
        return next((slot for slot in self._slots.values() if adapter in slot.adapters), None)

    def _refuse_taken(self, name: str, owner: _Slot | None = None) -> None:
        """Refuse a name that means something already, unless it is an adapter of ``owner``."""
        adapted = self._adapted(name)
        if name in self._slots or name in self._aliases or name == DEFAULT or adapted not in (None, owner):
            raise ConfigError(f"the model name {name!r} is taken", hint="choose another name")

    def _names(self, name: str) -> str:
        known: Sequence[str] = [*self._slots, *self._aliases, *(a for s in self._slots.values() for a in s.adapters)]
        near = difflib.get_close_matches(name, known, n=1)
        return f"did you mean {near[0]}?" if near else f"known models: {', '.join(known)}"

    def _card(self, slot: _Slot, adapter: str | None = None) -> ModelCard:
        llm = slot.llm
        return ModelCard(
            name=adapter or slot.name,
            reference=slot.reference if adapter is None else slot.adapters[adapter],
            parent=None if adapter is None else slot.name,
            state=slot.state,
            aliases=tuple(alias for alias, name in self._aliases.items() if name == slot.name and adapter is None),
            created=slot.created,
            max_model_len=llm.max_model_len if llm is not None else None,
            chats=llm.has_chat_template if llm is not None else None,
            error=slot.error.message if slot.error is not None else None,
        )
