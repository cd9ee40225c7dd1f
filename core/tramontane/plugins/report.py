# SPDX-License-Identifier: Apache-2.0
"""What became of each plugin: the rows behind ``tramontane plugins``."""

from __future__ import annotations

import traceback
from enum import StrEnum
from pathlib import Path

from attrs import field, frozen

from tramontane.plugins.settings import PluginId


class Status(StrEnum):
    """How loading went."""

    OK = "ok"
    PARTLY_UNKNOWN = "partly-unknown"
    """It works, but this core does not know some of its hooks."""
    FAILED = "failed"
    """Its code raised, or what it returned is not valid; nothing of it is in use."""
    INCOMPATIBLE = "incompatible"
    """It is written for another core, or a requirement is not met; nothing of it is in use."""
    OFF = "off"
    """The environment turned it off."""


#: Statuses of which people are told without asking, and which strict mode turns into an exception.
TROUBLE = (Status.FAILED, Status.INCOMPATIBLE, Status.PARTLY_UNKNOWN)


@frozen(kw_only=True)
class PluginReport:
    """One row."""

    id: PluginId
    status: Status
    ms: float = 0.0
    """Milliseconds to check, import, register and ask it."""
    contributions: tuple[str, ...] = ()
    """``kind name`` of each record, and the names of its decision hooks and observers."""
    error: str | None = None
    """One line: why it is not (wholly) in use."""
    notes: tuple[str, ...] = ()
    """What its author should look at although it works."""
    exception: BaseException | None = field(default=None, eq=False, repr=False)
    """What was raised, for a traceback."""

    def as_json(self) -> dict[str, object]:
        """The row as ``tramontane plugins --json`` prints it."""
        return {
            "name": self.id.name,
            "distribution": self.id.distribution,
            "version": self.id.version,
            "status": str(self.status),
            "ms": round(self.ms, 2),
            "contributions": list(self.contributions),
            "error": self.error,
            "notes": list(self.notes),
        }

    @property
    def line(self) -> str:
        """The row in one sentence, for stderr and for errors of look-ups."""
        return f"plugin {self.id.label} {_VERBS[self.status]}" + (f": {self.error}" if self.error else "")


_VERBS = {
    Status.OK: "is loaded",
    Status.PARTLY_UNKNOWN: "is loaded in part",
    Status.FAILED: "failed to load",
    Status.INCOMPATIBLE: "is not compatible",
    Status.OFF: "is off",
}


def describe(error: BaseException) -> str:
    """An exception in one line: its type, the first line of its message, and the place in the code it came from."""
    message = str(error).strip().splitlines()
    if isinstance(error, SystemExit):
        message = [f"it tried to end the program (exit code {error.code!r})"]
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    if frames and not isinstance(error, SyntaxError):  # a SyntaxError's message names its place itself
        place = f" [{Path(frames[-1].filename).name}:{frames[-1].lineno}]"
    return type(error).__name__ + (f": {message[0]}" if message else "") + place
