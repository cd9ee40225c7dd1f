# SPDX-License-Identifier: Apache-2.0
"""What a server tells the frontends behind it, in the scope of an ASGI request (https://asgi.readthedocs.io)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]


def tell(
    scope: Scope, *, request_id: str | None = None, tenant: bytes | None = None, admin: bool | None = None
) -> None:
    """Write down what is known of a request, for whoever answers it.

    Args:
        scope: The request's.
        request_id: What it is called in logs and answers.
        tenant: Whose it is, where callers are kept apart.
        admin: Whether whoever sent it may change what the server does for all.
    """
    told = {"request_id": request_id, "tenant": tenant, "admin": admin}
    scope.setdefault("state", {}).update({name: value for name, value in told.items() if value is not None})


def request_id(scope: Mapping[str, Any]) -> str | None:
    """What the request is called; ``None`` where no server gave it a name."""
    found: str | None = scope.get("state", {}).get("request_id")
    return found


def tenant(scope: Mapping[str, Any]) -> bytes:
    """Whose caches and stored things the request may see; empty where callers are not kept apart."""
    found: bytes = scope.get("state", {}).get("tenant", b"")
    return found


def may_administer(scope: Mapping[str, Any]) -> bool:
    """Whether the request may load and unload models and the like; not unless a server has said so."""
    found: bool = scope.get("state", {}).get("admin", False)
    return found


def path_below_root(scope: Mapping[str, Any]) -> str:
    """The path as an application knows it, wherever it is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path
