# SPDX-License-Identifier: Apache-2.0
"""What web frontends share: strict bodies, named fields, schemas, streams with a pulse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Literal

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from tramontane.errors import EngineClosedError, EngineError, RequestError, TramontaneError, UnknownNameError
from tramontane.wire import (
    EventStream,
    FieldError,
    SamplingFields,
    decode,
    frame,
    identifier,
    json_schema,
    public_message,
    read,
    status_of,
    while_connected,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "states 'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b'"\xff"', "UTF-8"),
        (b'"\\ud800"', "UTF-8"),
        (b'{"\\udfff": 1}', "UTF-8"),
        (b"[" * 100_000, "levels deep"),
        (b"[" * 65 + b"]" * 65, "levels deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "levels deep"),
        (b"1" * 5000, "too long"),
        (b'{"a": 1} x', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_bodies_that_could_be_read_in_two_ways_are_refused(raw: bytes, says: str) -> None:
    with pytest.raises(FieldError, match=says):
        decode(raw)


def test_what_is_allowed_to_be_strange() -> None:
    assert decode(b'"\\ud83d\\ude00"') == "😀"
    assert decode(b"[" * 64 + b"]" * 64)


@frozen(kw_only=True)
class Inner:
    kind: Literal["a", "b"]
    size: int = 1


@frozen(kw_only=True)
class Outer:
    inner: Inner
    names: tuple[str, ...] | None = None
    bias: dict[str, float] | None = None


def test_fields_are_named() -> None:
    assert read(Outer, {"inner": {"kind": "a"}, "new": 1}) == Outer(inner=Inner(kind="a"))
    with pytest.raises(FieldError) as caught:
        read(Outer, {"inner": {"kind": "c"}, "names": [1]})
    assert caught.value.param == "inner.kind"
    assert "names" in caught.value.message
    with pytest.raises(FieldError, match="JSON object"):
        read(Outer, [])


def test_a_class_is_a_schema() -> None:
    schema = json_schema(Outer)
    assert schema["required"] == ["inner"]
    assert schema["properties"]["inner"]["properties"]["kind"] == {"enum": ["a", "b"]}
    assert schema["properties"]["names"]["anyOf"][0] == {"type": "array", "items": {"type": "string"}}
    assert schema["properties"]["bias"]["anyOf"][0]["additionalProperties"] == {"type": "number"}


@pytest.mark.parametrize("name", ["", "x" * 257, "a/b", "a\\b", "a\0b", "a\nb", "‮x"])
def test_names_that_clients_make_up(name: str) -> None:
    with pytest.raises(FieldError) as caught:
        identifier(name, "user")
    assert caught.value.param == "user"


def test_sampling_fields_translate() -> None:
    asked = read(SamplingFields, {"seed": -1, "logit_bias": {"3": 1.5}, "top_k": 4})
    assert asked.parameters() == {"seed": 2**64 - 1, "logit_bias": {3: 1.5}, "top_k": 4}
    salted = read(SamplingFields, {"cache_salt": "mine"})
    salts = [one.settings(tenant)["salt"] for one in (salted, SamplingFields()) for tenant in (b"", b"tenant")]
    assert len(set(salts)) == 4
    assert SamplingFields().settings() == {"salt": b""}
    assert read(SamplingFields, {"adapter": "poet"}).settings()["adapter"] == "poet"
    regex = read(SamplingFields, {"grammar": {"type": "regex", "value": "[ab]+"}})
    assert regex.parameters()["constraint"].value == "[ab]+"


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (RequestError("wrong"), 400, "wrong"),
        (FieldError("gone", status=404), 404, "gone"),
        (
            UnknownNameError("there is no model 'x'", hint="known models: y"),
            404,
            "there is no model 'x'; known models: y",
        ),
        (EngineClosedError("closed at 0x7f12"), 503, "the model was stopped"),
        (EngineError("/root/secret.py:3 tensor at 0x7f12", hint="/root"), 500, "the model failed"),
        (TramontaneError("/etc/passwd"), 500, "the server failed"),
    ],
)
def test_errors_of_the_inside_tell_nothing(error: TramontaneError, status: int, says: str) -> None:
    assert status_of(error) == status
    assert says in public_message(error)
    assert "0x7f" not in public_message(error)
    assert "/" not in public_message(error)


class Client:
    """The other side of an ASGI call."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.left = asyncio.Event()
        self.blocked: asyncio.Event | None = None

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self.blocked is not None:
            await self.blocked.wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_a_stream_sends_frames_and_a_pulse() -> None:
    client, closed = Client(), []

    async def frames() -> AsyncGenerator[bytes]:
        try:
            yield frame(b"1")
            await asyncio.sleep(0.12)
            yield frame(b"2", "named")
        finally:
            closed.append(True)

    await EventStream(frames(), pulse=b": p\n\n", pulse_s=0.05)({}, client.receive, client.send)
    assert client.sent[0]["status"] == 200
    assert client.body.startswith(b"data: 1\n\n: p\n\n")
    assert client.body.endswith(b"event: named\ndata: 2\n\n")
    assert client.sent[-1]["more_body"] is False
    assert closed == [True]


@pytest.mark.parametrize("reading", [True, False])
async def test_a_client_that_leaves_or_reads_nothing_closes_the_frames(reading: bool) -> None:
    client, closed = Client(), []

    async def frames() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield frame(b"1")
                await asyncio.sleep(0.01)
        finally:
            closed.append(True)

    stream = EventStream(frames(), pulse_s=0.02, stalled_s=0.05)
    answering = asyncio.create_task(stream({}, client.receive, client.send))
    await asyncio.sleep(0.03)
    if reading:
        client.left.set()
    else:
        client.blocked = asyncio.Event()
    await asyncio.wait_for(answering, 2)
    assert closed == [True]


async def test_work_ends_when_its_client_leaves() -> None:
    client, ended = Client(), []

    async def work() -> int:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(True)
        return 1

    waiting = asyncio.create_task(while_connected(client.receive, work()))
    await asyncio.sleep(0.02)
    client.left.set()
    assert await waiting is None
    assert ended == [True]

    async def fails() -> int:
        raise RequestError("no")

    with pytest.raises(RequestError):
        await while_connected(Client().receive, fails())
