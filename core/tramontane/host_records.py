# SPDX-License-Identifier: Apache-2.0
"""What a host and its frontends tell each other: a card of each model, and what a frontend was started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from tramontane.progress import Progress, silent


class ModelState(StrEnum):
    """How far a model is."""

    CONFIGURED = "configured"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@frozen(kw_only=True)
class ModelCard:
    """What frontends may tell about a model."""

    name: str
    reference: str
    state: ModelState
    aliases: tuple[str, ...] = ()
    created: float = 0.0
    """``time.time()`` when it was configured."""
    max_model_len: int | None = None
    """Known once it is loaded, as is the next."""
    chats: bool | None = None
    """Whether it has a chat template."""
    error: str | None = None
    """Why loading failed."""
    parent: str | None = None
    """The model that this one is an adapter of."""


@frozen(kw_only=True)
class FrontendOptions:
    """What the command line hands to a frontend with a loop of its own."""

    model: str | None = None
    """The host's model to begin with; ``None`` is the first."""
    system: str | None = None
    sampling: Mapping[str, Any] = field(factory=dict)
    """Sampling parameters that were given, by name; the others are the model's defaults."""
    template: Mapping[str, Any] = field(factory=dict)
    """Variables of the chat template that were given, by name."""
    adapter: str | None = None
    """The model's adapter to begin with; ``None`` for the model as it is."""
    verbosity: int = 0
    """How much to say: above 0 figures of every answer, below 0 nothing but answers and errors."""
    theme: str | None = None
    """The name of the frontend's colours; ``None`` leaves the choice to it."""
    settings: Mapping[str, Any] = field(factory=dict)
    """What a model is loaded with that the person names later; as for :class:`tramontane.LLM`."""
    progress: Callable[[], AbstractContextManager[Progress]] = field(default=lambda: nullcontext(silent), eq=False)
    """Opens what shows how such a model's loading goes."""
