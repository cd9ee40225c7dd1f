# SPDX-License-Identifier: Apache-2.0
"""Lists by pages: ``limit``, ``order``, ``after``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from attrs import frozen

from tramontane.wire import FieldError


@frozen(kw_only=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None = None
    descending: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], *, most: int, usual: int, descending: bool = False) -> Self:
        """From the query of a request.

        Raises:
            FieldError: A parameter is out of range.
        """
        limit, order = query.get("limit"), query.get("order")
        if limit is not None and not (limit.isdecimal() and len(limit) < 7 and 1 <= int(limit) <= most):
            raise FieldError(f"limit must be from 1 to {most}", param="limit")
        if order not in (None, "asc", "desc"):
            raise FieldError("order must be asc or desc", param="order")
        return cls(
            limit=usual if limit is None else int(limit), after=query.get("after"),
            descending=descending if order is None else order == "desc",
        )  # fmt: skip


def page(found: Sequence[Mapping[str, Any]], asked: Page) -> dict[str, Any]:
    """A page of objects that are given the oldest first.

    Raises:
        FieldError: ``after`` names none of them.
    """
    listed = list(reversed(found)) if asked.descending else list(found)
    if asked.after is not None:
        places = [place for place, one in enumerate(listed) if one["id"] == asked.after]
        if not places:
            raise FieldError("after names nothing in this list", param="after")
        listed = listed[places[0] + 1 :]
    shown = listed[: asked.limit]
    return {
        "object": "list", "data": shown, "has_more": len(listed) > len(shown),
        "first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None,
    }  # fmt: skip
