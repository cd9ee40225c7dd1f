# SPDX-License-Identifier: Apache-2.0
"""Loading and unloading adapters of a running model, by the routes that vLLM has for it.

Only what lies in the folders that the server was started with can be loaded: whoever may ask may not choose which files
the server reads. What lies elsewhere and what does not exist are refused alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from starlette.requests import Request

from tramontane.errors import ConfigError
from tramontane.host import Host
from tramontane.wire import FieldError, decode, identifier, public_message, read
from tramontane.wire.models import model_object
from tramontane.wire.openapi import operation

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@frozen(kw_only=True)
class LoadAdapterRequest:
    """``POST /v1/load_lora_adapter``."""

    lora_name: str
    lora_path: str
    base_model_name: str | None = None
    """The model it is for; the first one by default."""
    load_inplace: bool = False
    """Replace an adapter of that name."""


@frozen(kw_only=True)
class UnloadAdapterRequest:
    """``POST /v1/unload_lora_adapter``."""

    lora_name: str


def paths() -> dict[str, Any]:
    """The routes for ``/openapi.json``."""
    return {
        LOAD: {
            "post": operation("Load an adapter of a model; requests name it like a model.", body=LoadAdapterRequest)
        },
        UNLOAD: {"post": operation("Forget an adapter.", body=UnloadAdapterRequest)},
    }


@frozen
class AdapterRoutes:
    """Handlers of the routes."""

    folders: Sequence[Path]
    """Where adapters may lie."""

    async def load(self, host: Host, request: Request) -> Any:
        """Load an adapter."""
        asked = read(LoadAdapterRequest, decode(await request.body()))
        name = identifier(asked.lora_name, "lora_name")
        if not asked.load_inplace and any(card.name == name for card in host.models()):
            raise FieldError(f"a model or an adapter {name!r} is there already", param="lora_name")
        found = self._folder(asked.lora_path)
        try:
            return model_object(await host.load_adapter(name, found, asked.base_model_name))
        except ConfigError as error:  # the name is taken
            raise FieldError(public_message(error), param="lora_name") from None

    async def unload(self, host: Host, request: Request) -> Any:
        """Forget an adapter."""
        asked = read(UnloadAdapterRequest, decode(await request.body()))
        card = host.model(asked.lora_name)
        await host.unload_adapter(asked.lora_name)
        return {"id": card.name, "object": "model", "deleted": True, "parent": card.parent}

    def _folder(self, given: str) -> Path:
        """The folder that a path names, links followed.

        Raises:
            FieldError: It lies in none of the allowed ones.
        """
        if not self.folders:
            raise FieldError("the server was started without a folder of adapters (--adapter-dir)", status=403)
        for folder in self.folders:
            root = folder.resolve()
            try:
                found = (root / given).resolve()
            except (OSError, ValueError, RuntimeError):  # a zero byte, links that go round
                continue
            if found != root and found.is_relative_to(root) and found.is_dir():
                return found
        raise FieldError("there is no such folder among the server's adapters", param="lora_path")
