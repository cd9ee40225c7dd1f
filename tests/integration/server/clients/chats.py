# SPDX-License-Identifier: Apache-2.0
"""Drives one client of others: a chat, a stream, a tool's round trip. Prints what came out as one JSON object.

    python chats.py NAME BASE_URL

It runs in the clients' own environment, which has no Tramontane, so it imports nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

STORY = "Tell me a story."
WEATHER = "How is the weather in Rome?"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
asked: list[dict[str, Any]] = []
"""What the tool was called with."""


def get_weather(city: str, days: int) -> str:
    """The weather of a city.

    Args:
        city: Which.
        days: How many.
    """
    asked.append({"city": city, "days": days})
    return "sunny"


def openai_sync(url: str) -> dict[str, Any]:
    """openai-python: plain, streamed, parsed, tools; and the responses API."""
    from openai import OpenAI
    from pydantic import BaseModel

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    turn = [{"role": "user", "content": STORY}]
    limits = {"max_tokens": 24, "temperature": 0}
    chat = client.chat.completions.create(model="storyteller", messages=turn, **limits).choices[0].message.content
    streamed = client.chat.completions.create(model="storyteller", messages=turn, stream=True, **limits)
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed]
    messages: list[Any] = [{"role": "user", "content": WEATHER}]
    function = {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}
    tools: Any = [{"type": "function", "function": function}]
    first = client.chat.completions.create(model="talker", messages=messages, tools=tools).choices[0].message
    messages.append(first)
    for call in first.tool_calls or ():
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    final = client.chat.completions.create(model="talker", messages=messages, tools=tools).choices[0].message.content

    class Pet(BaseModel):
        name: str
        legs: int

    parsed = client.chat.completions.parse(
        model="storyteller", messages=turn, response_format=Pet, max_tokens=60, temperature=0
    )
    events = client.responses.create(model="storyteller", input=STORY, max_output_tokens=24, temperature=0, stream=True)
    told = list(events)[-1].response
    return {
        "chat": chat, "stream": "".join(pieces), "final": final,
        "parsed": parsed.choices[0].message.parsed is not None,
        "response": told.output_text, "reasoning": getattr(first, "reasoning_content", None),
    }  # fmt: skip


def openai_async(url: str) -> dict[str, Any]:
    """openai-python's other half: async, and the helper that accumulates a stream."""
    from openai import AsyncOpenAI

    async def work() -> dict[str, Any]:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
        turn: Any = [{"role": "user", "content": STORY}]
        chat = await client.chat.completions.create(model="storyteller", messages=turn, max_tokens=24, temperature=0)
        pieces = []
        stream = client.chat.completions.stream(model="storyteller", messages=turn, max_tokens=24, temperature=0)
        async with stream as events:
            async for event in events:
                if event.type == "content.delta":
                    pieces.append(event.delta)
        messages: Any = [{"role": "user", "content": WEATHER}]
        function = {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}
        tools: Any = [{"type": "function", "function": function}]
        async with client.chat.completions.stream(model="plain", messages=messages, tools=tools) as events:
            first = (await events.get_final_completion()).choices[0].message
        call = (first.tool_calls or [])[0]
        result = get_weather(**json.loads(call.function.arguments))
        messages += [first.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": result}]
        final = await client.chat.completions.create(model="plain", messages=messages, tools=tools)
        return {
            "chat": chat.choices[0].message.content, "stream": "".join(pieces),
            "final": final.choices[0].message.content,
        }  # fmt: skip

    return asyncio.run(work())


def anthropic(url: str) -> dict[str, Any]:
    """Anthropic's client."""
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="none")
    turn: Any = [{"role": "user", "content": STORY}]
    limits: Any = {"max_tokens": 24, "extra_body": {"temperature": 0}}
    chat = client.messages.create(model="storyteller", messages=turn, **limits)
    with client.messages.stream(model="storyteller", messages=turn, **limits) as stream:
        pieces = list(stream.text_stream)
    tools: Any = [{"name": "get_weather", "description": "Weather.", "input_schema": PARAMETERS}]
    messages: Any = [{"role": "user", "content": WEATHER}]
    with client.messages.stream(model="talker", max_tokens=300, messages=messages, tools=tools) as stream:
        first = stream.get_final_message()
    call = next(block for block in first.content if block.type == "tool_use")
    result = get_weather(**call.input)
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": result}]},
    ]
    final = client.messages.create(model="talker", max_tokens=300, messages=messages, tools=tools)
    return {"chat": chat.content[0].text, "stream": "".join(pieces), "final": final.content[0].text}


def langchain(url: str) -> dict[str, Any]:
    """langchain-openai."""
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    teller = ChatOpenAI(model="storyteller", base_url=f"{url}/v1", api_key="none", max_tokens=24, temperature=0)
    chat = teller.invoke(STORY).content
    pieces = [str(chunk.content) for chunk in teller.stream(STORY)]
    weather = tool(get_weather)
    model = ChatOpenAI(model="talker", base_url=f"{url}/v1", api_key="none").bind_tools([weather])
    messages: list[Any] = [HumanMessage(WEATHER)]
    first = model.invoke(messages)
    messages.append(first)
    for call in first.tool_calls:
        messages.append(ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]))
    return {"chat": chat, "stream": "".join(pieces), "final": model.invoke(messages).content}


def pydantic_ai(url: str) -> dict[str, Any]:
    """pydantic-ai, which runs the tools itself."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    limits: Any = {"max_tokens": 24, "temperature": 0}
    teller = Agent(OpenAIChatModel("storyteller", provider=provider), model_settings=limits)

    async def work() -> dict[str, Any]:
        chat = (await teller.run(STORY)).output
        async with teller.run_stream(STORY) as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True)]
        agent = Agent(OpenAIChatModel("talker", provider=provider), tools=[get_weather])
        return {"chat": chat, "stream": "".join(pieces), "final": (await agent.run(WEATHER)).output}

    return asyncio.run(work())


def llm(url: str) -> dict[str, Any]:
    """llm, as its plugins and its ``extra-openai-models.yaml`` make models."""
    from llm.default_plugins.openai_models import Chat

    def model(name: str) -> Any:
        made = Chat(name, model_name=name, api_base=f"{url}/v1", supports_tools=True)
        made.key = "none"
        return made

    teller = model("storyteller")
    chat = teller.prompt(STORY, stream=False, max_tokens=24, temperature=0).text()
    pieces = list(teller.prompt(STORY, stream=True, max_tokens=24, temperature=0))
    final = model("plain").chain(WEATHER, tools=[get_weather], stream=False).text()
    return {"chat": chat, "stream": "".join(pieces), "final": final}


def llama_index(url: str) -> dict[str, Any]:
    """LlamaIndex's model for servers like OpenAI's."""
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    def model(name: str, **options: Any) -> Any:
        return OpenAILike(
            model=name, api_base=f"{url}/v1", api_key="none", is_chat_model=True, is_function_calling_model=True,
            **options,
        )  # fmt: skip

    teller, turn = model("storyteller", max_tokens=24, temperature=0), [ChatMessage(role="user", content=STORY)]
    chat = teller.chat(turn).message.content
    pieces = [chunk.delta or "" for chunk in teller.stream_chat(turn)]
    weather, talker = FunctionTool.from_defaults(get_weather), model("talker", temperature=0)
    history = [ChatMessage(role="user", content=WEATHER)]
    first = talker.chat_with_tools([weather], chat_history=history)
    history.append(first.message)
    for call in talker.get_tool_calls_from_response(first):
        result = str(weather(**call.tool_kwargs))
        history.append(ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id}))
    return {"chat": chat, "stream": "".join(pieces), "final": talker.chat(history).message.content}


CLIENTS: dict[str, Callable[[str], dict[str, Any]]] = {
    made.__name__: made for made in (openai_sync, openai_async, anthropic, langchain, pydantic_ai, llm, llama_index)
}

if __name__ == "__main__":
    print(json.dumps({**CLIENTS[sys.argv[1]](sys.argv[2]), "asked": asked}))
