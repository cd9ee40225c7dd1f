# SPDX-License-Identifier: Apache-2.0
"""How records travel between an engine's process and the one that asks: as plain JSON, and arrays beside it.

What is common is short: a delta that is nothing but tokens is a list of six. Everything else goes by field names, those
with a default left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
from attrs import evolve
from cattrs.preconf.json import make_converter

from tramontane import errors
from tramontane.adapters import LoadedAdapter
from tramontane.child.frames import Frame
from tramontane.engine.outputs import describe
from tramontane.engine.stats import EngineStats
from tramontane.errors import EngineError, TramontaneError
from tramontane.progress import ProgressEvent
from tramontane.records import EngineInfo
from tramontane.requests import Delta, EngineRequest, FinishReason

DELTAS = "deltas"
TOLD = "told"
"""What an engine's process is told at a time: pairs of a kind and a body."""
_converter: cattrs.Converter = make_converter(omit_if_default=True, forbid_extra_keys=True)


def pack(record: EngineRequest | EngineInfo | EngineStats | LoadedAdapter | ProgressEvent) -> Any:
    """A record as plain JSON."""
    return _converter.unstructure(record)


def unpack_request(body: Any) -> EngineRequest:
    """As :func:`pack` wrote it; its values are checked as those of any request are."""
    return _converter.structure(body, EngineRequest)


def unpack_adapter(body: Any) -> LoadedAdapter:
    """As :func:`pack` wrote it."""
    return _converter.structure(body, LoadedAdapter)


def unpack_info(body: Any) -> EngineInfo:
    """As :func:`pack` wrote it."""
    return _converter.structure(body, EngineInfo)


def unpack_stats(body: Any) -> EngineStats:
    """As :func:`pack` wrote it."""
    return _converter.structure(body, EngineStats)


def unpack_event(body: Any) -> ProgressEvent:
    """As :func:`pack` wrote it."""
    return _converter.structure(body, ProgressEvent)


# --- deltas -------------------------------------------------------------------------------------------------------


def pack_deltas(deltas: Sequence[Delta]) -> Frame:
    """One step's deltas as one frame."""
    rows: list[Any] = []
    arrays: list[memoryview] = []
    for delta in deltas:
        if delta.output is not None:
            array = np.ascontiguousarray(delta.output, dtype=np.float32)
            rows.append([_converter.unstructure(evolve(delta, output=None)), len(arrays), array.shape])
            arrays.append(array.reshape(-1).view(np.uint8).data)
        elif delta.logprobs or delta.error is not None or delta.prompt_logprobs is not None:
            rows.append([_converter.unstructure(delta)])
        else:
            rows.append((delta.request_id, delta.index, delta.token_ids, delta.finish_reason, delta.stop_token,
                         delta.cached_tokens))  # fmt: skip
    return Frame(DELTAS, rows, tuple(arrays))


def unpack_deltas(frame: Frame) -> list[Delta]:
    """The deltas of a frame."""
    return [_delta(row, frame.arrays) for row in frame.body]


def _delta(row: list[Any], arrays: Sequence[Any]) -> Delta:
    if len(row) == 6:
        request_id, index, token_ids, reason, stop_token, cached = row
        return Delta(
            request_id=request_id,
            index=index,
            token_ids=tuple(token_ids),
            finish_reason=None if reason is None else FinishReason(reason),
            stop_token=stop_token,
            cached_tokens=cached,
        )
    delta = _converter.structure(row[0], Delta)
    if len(row) == 1:
        return delta
    _, place, shape = row
    return evolve(delta, output=np.frombuffer(arrays[place], dtype=np.float32).reshape(shape))


# --- errors and settings ------------------------------------------------------------------------------------------


def pack_error(error: BaseException) -> Any:
    """An error as the other side is to raise it; of a foreign one only the kind is told."""
    if isinstance(error, TramontaneError):
        return {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"type": EngineError.__name__, "message": describe(error), "hint": None}


def unpack_error(body: Mapping[str, Any]) -> TramontaneError:
    """The error that the other side met, of its class where that is one of the core's."""
    found = getattr(errors, str(body["type"]), None)
    kind = found if isinstance(found, type) and issubclass(found, TramontaneError) else EngineError
    return kind(str(body["message"]), hint=body["hint"])


def pack_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``LLM`` as plain JSON."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return os.fspath(value) if isinstance(value, Path) else value
