# SPDX-License-Identifier: Apache-2.0
"""Tools that a model may call."""

from __future__ import annotations

from tramontane.tools.calls import ToolCall, ToolCallDelta
from tramontane.tools.tool import Tool, schemas

__all__ = ["Tool", "ToolCall", "ToolCallDelta", "schemas"]
