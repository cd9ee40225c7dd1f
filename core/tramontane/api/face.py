# SPDX-License-Identifier: Apache-2.0
"""What ``LLM`` and ``AsyncLLM`` share: loading, and everything that answers at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from tramontane.api.adapters import Adapters
from tramontane.api.chat_call import Message
from tramontane.api.service import Service
from tramontane.api.settings import ModelSettings, Plugin, split_plugins
from tramontane.requests import SamplingParams

if TYPE_CHECKING:
    from typing import Unpack

    from tramontane.build import ModelPlan
    from tramontane.engine import EngineStats
    from tramontane.errors import TramontaneError
    from tramontane.progress import Progress


class ModelFace:
    """A running model: its facts, its tokenizer, its statistics."""

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        plugins: Sequence[Plugin] = (),
        progress: Progress | None = None,
        **settings: Unpack[ModelSettings],
    ) -> None:
        """Load a model and start its engine.

        Args:
            model: A folder, a file, a hub id, or a name that a plugin knows (``demo``).
            plugins: Late plugins: modules, or paths of Python files. The others are found where they are installed.
            progress: Is told how loading goes.
            settings: See :class:`tramontane.api.ModelSettings`.

        Raises:
            HubError: The reference cannot be resolved to files.
            CheckpointError: The files are damaged or do not fit the model.
            UnknownNameError: No installed plugin has the architecture, format or backend.
            PlanError: The model cannot be built as asked, or does not fit the memory.
            ConfigError: A setting is out of range.
        """
        from tramontane.plugins import installed

        modules, files = split_plugins(plugins)
        found = installed().extended(modules, files)
        self._service = Service.load(os.fspath(model), settings, found, progress)
        self._maker = self._service.maker

    @classmethod
    def over(cls, service: Service, adapter: str | None = None) -> Self:
        """A further face of a running model; closing either closes both.

        Args:
            service: The model.
            adapter: What requests use that do not say; the face is called like it.
        """
        face = cls.__new__(cls)
        face._service = service
        face._maker = service.maker if adapter is None else evolve(service.maker, adapter=adapter)
        return face

    def using(self, adapter: str) -> Self:
        """A further face whose requests use an adapter unless they say otherwise."""
        return self.over(self._service, adapter)

    @property
    def failure(self) -> TramontaneError | None:
        """Why the engine has ended by itself, if it did: its process died."""
        return self._service.running.dead

    @property
    def name(self) -> str:
        """What the model is called: its adapter's name, its own in a host, or else the reference it was loaded by."""
        return self._maker.adapter or self._service.info.model

    @property
    def max_model_len(self) -> int:
        """Most tokens of one sequence, prompt included."""
        return self._service.info.max_model_len

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self._maker.vocab_size

    @property
    def has_chat_template(self) -> bool:
        """Whether :meth:`chat` works; a base model only completes text."""
        return self._maker.chats.template is not None

    @property
    def takes_thinking_budget(self) -> bool:
        """Whether the model's thoughts can be ended: it is known how it writes them, and their end is one token."""
        return self._maker.chats.takes_budget

    @property
    def plan(self) -> ModelPlan:
        """What is loaded, how it is stored, where it lives.

        Raises:
            PlanError: The model's engine is in a process of its own, and its plan with it.
        """
        return self._service.running.plan

    @property
    def adapters(self) -> Adapters:
        """The adapters that requests may choose; others can be loaded."""
        return self._service.running.adapters

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return self._service.stats()

    def default_params(self, **overrides: Any) -> SamplingParams:
        """The sampling defaults of the model (its ``generation_config.json``) with some parameters changed.

        Raises:
            RequestError: A parameter is out of range.
        """
        return self._maker.params(**overrides)

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text; with ``add_special`` those that begin a prompt too.

        Raises:
            RequestError: The model has no tokenizer.
        """
        return self._maker.required_tokenizer().encode(text, add_special=add_special)

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids.

        Raises:
            RequestError: The model has no tokenizer.
        """
        return self._maker.required_tokenizer().decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, where it is not the first of a text.

        Raises:
            RequestError: The model has no tokenizer.
        """
        return self._maker.required_tokenizer().token_bytes(token_id)

    def render_chat(self, messages: Sequence[Message], **template: Any) -> list[int]:
        """The token ids that :meth:`chat` would send for these messages and template options.

        Raises:
            RequestError: The model has no chat template, or the template refuses the messages.
        """
        return self._maker.chats.render(messages, **template)

    def close(self) -> None:
        """Stop the engine; calls that still run end with ``EngineClosedError``.

        Its memory is free when nobody holds the model any more. A model that is just dropped is closed too.
        """
        service: Service | None = getattr(self, "_service", None)
        if service is not None:
            service.close()
