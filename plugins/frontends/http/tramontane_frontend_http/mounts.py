# SPDX-License-Identifier: Apache-2.0
"""Which frontend a path belongs to: the one with the longest mount that begins it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field
from starlette.types import ASGIApp, Receive, Scope, Send

from tramontane.wire.scope import path_below_root
from tramontane_frontend_http.answers import refuse


@define(eq=False)
class Mounts:
    """An ASGI application over several. The path of a mount itself belongs to it, with or without a slash."""

    mounted: Sequence[tuple[str, ASGIApp]]
    """Mounts without a slash at their end, and what is there."""
    also: Mapping[str, ASGIApp] = field(factory=dict)
    """Exact paths outside the mounts, and whose they are."""
    _ordered: tuple[tuple[str, ASGIApp], ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ordered = tuple(sorted(self.mounted, key=lambda one: -len(one[0])))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, root, inside = scope["path"], scope.get("root_path", ""), path_below_root(scope)
        if inside in self.also:
            await self.also[inside](scope, receive, send)
            return
        for mount, app in self._ordered:
            if inside == mount or inside.startswith(f"{mount}/"):
                below = path if inside != mount else f"{path}/"
                await app({**scope, "path": below, "root_path": root + mount}, receive, send)
                return
        await refuse(scope, receive, send, 404, "not_found", f"nothing is at {path[:200]}")
