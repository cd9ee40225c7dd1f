# SPDX-License-Identifier: Apache-2.0
"""What web frontends share, without a web framework: JSON read strictly, fields read by name, streams with a pulse.

It owns no route, no socket and no vendor's format; frontends bring those. Names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.wire.body import decode as decode
    from tramontane.wire.errors import FieldError as FieldError
    from tramontane.wire.errors import public_message as public_message
    from tramontane.wire.errors import status_of as status_of
    from tramontane.wire.events import EventStream as EventStream
    from tramontane.wire.events import frame as frame
    from tramontane.wire.events import opened as opened
    from tramontane.wire.events import while_connected as while_connected
    from tramontane.wire.fields import identifier as identifier
    from tramontane.wire.fields import read as read
    from tramontane.wire.sampling import Grammar as Grammar
    from tramontane.wire.sampling import SamplingFields as SamplingFields
    from tramontane.wire.schema import json_schema as json_schema

_HOMES = {
    "EventStream": "events",
    "FieldError": "errors",
    "Grammar": "sampling",
    "SamplingFields": "sampling",
    "decode": "body",
    "frame": "events",
    "identifier": "fields",
    "json_schema": "schema",
    "opened": "events",
    "public_message": "errors",
    "read": "fields",
    "status_of": "errors",
    "while_connected": "events",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
