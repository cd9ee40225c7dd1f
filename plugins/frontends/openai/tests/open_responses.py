# SPDX-License-Identifier: Apache-2.0
"""Holds responses and events to the Open Responses specification."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest

pytest.importorskip("openresponses_types", reason="a development dependency")
from openresponses_types import types as spec


def _event_types() -> dict[str, Any]:
    """Every event's class, by the name of the event."""
    found = {}
    for name, cls in inspect.getmembers(spec, inspect.isclass):
        if name.endswith("StreamingEvent"):
            (kind,) = cls.model_fields["type"].annotation
            found[kind.value] = cls
    return found


EVENTS = _event_types()


def without_schema(response: dict[str, Any]) -> dict[str, Any]:
    """The specification's types want a JSON schema to be echoed as null, which its text does not."""
    found = copy.deepcopy(response)
    if found["text"]["format"]["type"] == "json_schema":
        found["text"]["format"]["schema"] = None
    return found


def check_response(response: dict[str, Any]) -> None:
    """Raises pydantic's ``ValidationError`` where a response is not one."""
    spec.ResponseResource.model_validate(without_schema(response))


def check_events(events: list[dict[str, Any]]) -> None:
    """Each event by itself, their numbers, and that items and parts are opened and closed in turn."""
    for event in events:
        shown = dict(event)
        if "response" in shown:
            shown["response"] = without_schema(shown["response"])
        EVENTS[event["type"]].model_validate(shown)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete", "response.failed")
    opened = None
    for event in events:
        if event["type"] == "response.output_item.added":
            assert opened is None, "an item begins in another"
            opened = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert event["item"]["id"] == opened
            opened = None
        elif "item_id" in event:
            assert event["item_id"] == opened
    assert opened is None
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
