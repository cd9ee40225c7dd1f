# SPDX-License-Identifier: Apache-2.0
"""How hard a model is asked to think, in the variables that chat templates read."""

from __future__ import annotations

from typing import Any

from tramontane.wire import FieldError

EFFORTS = ("none", "off", "minimal", "low", "medium", "high", "xhigh", "max")


def thinking(effort: str | None, enable: bool | None) -> dict[str, Any]:
    """Options of the template; no effort at all switches thinking off.

    Raises:
        FieldError: The effort is no such word, or contradicts ``enable``.
    """
    if effort is not None and effort not in EFFORTS:
        raise FieldError(f"reasoning effort must be one of {', '.join(EFFORTS)}", param="reasoning_effort")
    if effort in ("none", "off"):
        if enable:
            raise FieldError(f"enable_thinking contradicts a reasoning effort of {effort}", param="enable_thinking")
        return {"enable_thinking": False}
    if effort is not None and enable is False:
        raise FieldError(f"a reasoning effort of {effort} contradicts enable_thinking", param="enable_thinking")
    found = {"reasoning_effort": effort, "enable_thinking": enable}
    return {name: value for name, value in found.items() if value is not None}
