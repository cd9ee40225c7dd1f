# SPDX-License-Identifier: Apache-2.0
"""From a model's output to answer, reasoning and tool calls, as it streams: the machinery of chat formats.

A plugin describes a format with the notations here, or writes a parser of its own over :class:`Source` and
:class:`Sink`. Nothing here knows a model, and nothing evaluates what a model wrote.
"""

from __future__ import annotations

from tramontane.chat.parsing.demand import Demand, budget_constraint, format_constraint
from tramontane.chat.parsing.format import ChatFormat, OutputParser, Reasoning
from tramontane.chat.parsing.json_calls import BareHeadedJson, HeadedJson, JsonCalls
from tramontane.chat.parsing.json_values import json_value
from tramontane.chat.parsing.python_calls import PythonCalls
from tramontane.chat.parsing.rules import ARGUMENTS, NAME, NUMBER, RuledTool, Rules
from tramontane.chat.parsing.sink import MOST_CALLS, Offered, Parsed, Sink, random_id
from tramontane.chat.parsing.source import Source, Steps, Stops, nowhere
from tramontane.chat.parsing.syntax import CallSyntax, Either, is_name
from tramontane.chat.parsing.tagged import TaggedCalls

__all__ = [
    "ARGUMENTS",
    "MOST_CALLS",
    "NAME",
    "NUMBER",
    "BareHeadedJson",
    "CallSyntax",
    "ChatFormat",
    "Demand",
    "Either",
    "HeadedJson",
    "JsonCalls",
    "Offered",
    "OutputParser",
    "Parsed",
    "PythonCalls",
    "Reasoning",
    "RuledTool",
    "Rules",
    "Sink",
    "Source",
    "Steps",
    "Stops",
    "TaggedCalls",
    "budget_constraint",
    "format_constraint",
    "is_name",
    "json_value",
    "nowhere",
    "random_id",
]
