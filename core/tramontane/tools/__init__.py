# SPDX-License-Identifier: Apache-2.0
"""Tools that a model may call: what they are, its calls, and the loop that runs them."""

from __future__ import annotations

from tramontane.tools.calls import ToolCall, ToolCallDelta
from tramontane.tools.loop import ToolProvider, ToolRun, as_message, run_call, run_tools
from tramontane.tools.tool import Tool, as_tool, schemas

__all__ = [
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolProvider",
    "ToolRun",
    "as_message",
    "as_tool",
    "run_call",
    "run_tools",
    "schemas",
]
