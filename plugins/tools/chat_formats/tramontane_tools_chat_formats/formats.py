# SPDX-License-Identifier: Apache-2.0
"""The formats that are made of markers and one of the core's notations. Sources: the models' chat templates."""

from __future__ import annotations

import re
import secrets
import string

from tramontane.chat.parsing import (
    ARGUMENTS,
    NAME,
    NUMBER,
    BareHeadedJson,
    ChatFormat,
    Either,
    HeadedJson,
    JsonCalls,
    PythonCalls,
    Reasoning,
    TaggedCalls,
)

THINK = Reasoning()
_ALPHANUMERIC = string.ascii_letters + string.digits
_CALL_ID = "[CALL_ID]"
_KIMI_ID = re.compile(r"\s*((?:functions\.)?([\w.\-]+):\d+)\s*")


def mistral_id() -> str:
    """Mistral's templates insist on nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


def _mistral_head(text: str) -> tuple[str, str | None] | None:
    name, _, call_id = text.partition(_CALL_ID)
    return name.strip(), call_id.strip() or None


def _deepseek_head(text: str) -> tuple[str, str | None] | None:
    """``function<sep>name``; the word before the separator is the kind of call."""
    return text.rpartition("<｜tool▁sep｜>")[2].strip(), None


def _kimi_head(text: str) -> tuple[str, str | None] | None:
    """``functions.name:3``, which is the call's id too."""
    match = _KIMI_ID.fullmatch(text)
    return (match[2], match[1]) if match is not None else (text.strip().removeprefix("functions."), None)


def _invocations(block: str, *, prefix: str = "", string_flag: str = "", trim: bool = True) -> TaggedCalls:
    """``<invoke name="f"><parameter name="a">1</parameter></invoke>`` in a block, its tags perhaps with a prefix."""
    return TaggedCalls(
        opens=(f"<{block}>",),
        call_open=f"<{prefix}invoke",
        key_open=f"<{prefix}parameter",
        value_close=f"</{prefix}parameter>",
        call_close=f"</{prefix}invoke>",
        close=f"</{block}>",
        quote=(' name="', '"'),
        string_flag=string_flag,
        trim=trim,
        padded=False,
    )


_JSON_IN_TAG = JsonCalls(opens=("<tool_call>",), closes=("</tool_call>",), space="\n")
_FUNCTION_TAG = HeadedJson(
    opens=("<function=",), separators=(">",), closes=("</function>",), written=f"{NAME}>{ARGUMENTS}</function>"
)

HERMES = ChatFormat(reasoning=THINK, calls=(_JSON_IN_TAG,))

QWEN_CODER = ChatFormat(
    reasoning=THINK,
    calls=(
        Either(opens=("<tool_call>",), first=_JSON_IN_TAG, characters="{[", second=TaggedCalls(), writes_second=True),
    ),
)

SEED = ChatFormat(
    reasoning=Reasoning(opens="<seed:think>", closes="</seed:think>"),
    calls=(TaggedCalls(opens=("<seed:tool_call>",), close="</seed:tool_call>"),),
)

_LLAMA3_JSON = JsonCalls(firsts="{[", keys=("name", "parameters"), joint="; ")

LLAMA3 = ChatFormat(
    calls=(
        Either(
            opens=("<|python_tag|>",),
            first=JsonCalls(opens=("<|python_tag|>",)),
            characters="{[",
            second=PythonCalls(opens=("<|python_tag|>",), suffix=".call"),
        ),
        _FUNCTION_TAG,
        _LLAMA3_JSON,
    ),
    writes=_LLAMA3_JSON,
    ends=("<|eom_id|>", "<|eot_id|>"),
)

_PYTHON_LIST = PythonCalls(firsts="[")

LLAMA4 = ChatFormat(
    calls=(PythonCalls(opens=("<|python_start|>",), closes=("<|python_end|>",)), _PYTHON_LIST),
    writes=_PYTHON_LIST,
    ends=("<|eom|>", "<|eot|>"),
)

FUNCTIONARY = ChatFormat(calls=(_FUNCTION_TAG,), ends=("<|eom_id|>", "<|eot_id|>"))

_MISTRAL_LIST = JsonCalls(opens=("[TOOL_CALLS]",), listed=True, space=" ")
_MISTRAL_HEADED = HeadedJson(
    opens=("[TOOL_CALLS]",),
    separators=("[ARGS]",),
    inside=(_CALL_ID,),
    head=_mistral_head,
    written=f"{NAME}[ARGS]{ARGUMENTS}",
)
_MISTRAL_CALLS = Either(opens=("[TOOL_CALLS]",), first=_MISTRAL_LIST, characters="[{", second=_MISTRAL_HEADED)

MISTRAL = ChatFormat(calls=(_MISTRAL_CALLS,), writes=_MISTRAL_LIST, make_id=mistral_id)

MISTRAL_V11 = ChatFormat(
    reasoning=Reasoning(opens="[THINK]", closes="[/THINK]"),
    calls=(_MISTRAL_CALLS,),
    writes=_MISTRAL_HEADED,
    between="",
    make_id=mistral_id,
)

MISTRAL_THINK = ChatFormat(
    reasoning=THINK, calls=(_MISTRAL_CALLS,), writes=_MISTRAL_HEADED, between="", make_id=mistral_id
)

DEEPSEEK_V3 = ChatFormat(
    reasoning=THINK,
    calls=(
        HeadedJson(
            opens=("<｜tool▁call▁begin｜>",),
            separators=("\n",),
            closes=("<｜tool▁call▁end｜>",),
            inside=("<｜tool▁sep｜>",),
            head=_deepseek_head,
            before=("```json",),
            after=("```",),
            written=f"function<｜tool▁sep｜>{NAME}\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>",
        ),
    ),
    around=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ignored=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>"),
)

DEEPSEEK_V31 = ChatFormat(
    reasoning=THINK,
    calls=(
        HeadedJson(
            opens=("<｜tool▁call▁begin｜>",),
            separators=("<｜tool▁sep｜>",),
            closes=("<｜tool▁call▁end｜>",),
            written=f"{NAME}<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>",
        ),
    ),
    around=DEEPSEEK_V3.around,
    between="",
    ignored=DEEPSEEK_V3.ignored,
)

DEEPSEEK_V32 = ChatFormat(
    reasoning=THINK,
    calls=(_invocations("｜DSML｜function_calls", prefix="｜DSML｜", string_flag=' string="{}"', trim=False),),
)

GEMMA = ChatFormat(
    calls=(
        PythonCalls(opens=("```tool_code",), closes=("```",), space="\n"),
        JsonCalls(opens=("```tool_call", "```json"), closes=("```",), only_offered=True),
        _PYTHON_LIST,
        JsonCalls(firsts="{"),
    )
)

GLM4 = ChatFormat(calls=(BareHeadedJson(),), ends=("<|observation|>", "<|user|>"))

GLM45 = ChatFormat(
    reasoning=THINK,
    calls=(
        TaggedCalls(
            call_open="",
            call_open_ends=("\n",),
            key_open="<arg_key>",
            key_ends=("</arg_key>",),
            value_open="<arg_value>",
            value_close="</arg_value>",
            call_close="",
            trim=False,
            padded=False,
        ),
    ),
    ends=("<|observation|>", "<|user|>"),
)

PHI4_MINI = ChatFormat(
    calls=(JsonCalls(opens=("<|tool_call|>", "functools"), closes=("<|/tool_call|>",), listed=True),)
)

GRANITE = ChatFormat(
    reasoning=THINK,
    calls=(JsonCalls(opens=("<|tool_call|>", "<tool_call>"), listed=True),),
    ignored=("<response>", "</response>"),
)

COMMAND_R = ChatFormat(
    calls=(
        JsonCalls(
            opens=("Action:\n```json", "Action: ```json"),
            closes=("```",),
            keys=("tool_name", "parameters"),
            listed=True,
            space="\n",
        ),
    ),
)

COMMAND_R7B = ChatFormat(
    reasoning=Reasoning(opens="<|START_THINKING|>", closes="<|END_THINKING|>"),
    calls=(
        JsonCalls(
            opens=("<|START_ACTION|>",),
            closes=("<|END_ACTION|>",),
            keys=("tool_name", "parameters"),
            listed=True,
            space="\n",
        ),
    ),
    ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
)

SMOLLM3 = ChatFormat(
    reasoning=THINK,
    calls=(_JSON_IN_TAG, PythonCalls(opens=("<code>",), closes=("</code>",))),
)

LFM2 = ChatFormat(
    reasoning=THINK,
    calls=(
        Either(
            opens=("<|tool_call_start|>",),
            first=JsonCalls(opens=("<|tool_call_start|>",), closes=("<|tool_call_end|>",)),
            characters="{",
            second=PythonCalls(opens=("<|tool_call_start|>",), closes=("<|tool_call_end|>",)),
            writes_second=True,
        ),
        _PYTHON_LIST,
    ),
)

HUNYUAN = ChatFormat(
    reasoning=THINK,
    calls=(JsonCalls(opens=("<tool_calls>",), closes=("</tool_calls>",), listed=True, space="\n"),),
    ignored=("<answer>", "</answer>"),
)

KIMI_K2 = ChatFormat(
    reasoning=Reasoning(ends_before=("<|tool_calls_section_begin|>",)),
    calls=(
        HeadedJson(
            opens=("<|tool_call_begin|>",),
            separators=("<|tool_call_argument_begin|>",),
            closes=("<|tool_call_end|>",),
            head=_kimi_head,
            written=f"functions.{NAME}:{NUMBER}<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>",
        ),
    ),
    ignored=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    around=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    between="",
)

MINIMAX_M1 = ChatFormat(
    reasoning=THINK,
    calls=(JsonCalls(opens=("<tool_calls>",), closes=("</tool_calls>",), joint="\n", space="\n"),),
)

MINIMAX_M2 = ChatFormat(
    reasoning=THINK,
    calls=(_invocations("minimax:tool_call"),),
)

NEMOTRON = ChatFormat(reasoning=THINK, calls=(JsonCalls(opens=("<TOOLCALL>",), closes=("</TOOLCALL>",), listed=True),))

APRIEL = ChatFormat(
    calls=(JsonCalls(opens=("<tool_calls>",), closes=("</tool_calls>",), listed=True),),
    ignored=("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
)

APERTUS = ChatFormat(
    reasoning=Reasoning(opens="<|inner_prefix|>", closes="<|inner_suffix|>"),
    calls=(JsonCalls(opens=("<|tools_prefix|>",), closes=("<|tools_suffix|>",), keyed=True, listed=True),),
)

FIREFUNCTION = ChatFormat(calls=(JsonCalls(opens=("functools", " functools"), listed=True),))

THINKING = ChatFormat(reasoning=THINK)

_PLAIN_JSON = JsonCalls(firsts="{[", joint="\n")

PLAIN_JSON = ChatFormat(
    reasoning=THINK,
    calls=(
        _JSON_IN_TAG,
        JsonCalls(opens=("```json",), closes=("```",), only_offered=True),
        _PLAIN_JSON,
    ),
    writes=_PLAIN_JSON,
)
"""For templates that take tools and say nothing else about how they are called."""
