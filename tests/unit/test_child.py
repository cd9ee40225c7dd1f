# SPDX-License-Identifier: Apache-2.0
"""What travels between an engine's process and the one that asks: frames and records."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from tramontane import SamplingParams
from tramontane.child import codec
from tramontane.child.frames import Channel, Frame
from tramontane.engine import EngineStats
from tramontane.errors import EngineError, OutOfMemoryError
from tramontane.grammar import Constraint
from tramontane.progress import ProgressEvent
from tramontane.records import EngineInfo
from tramontane.requests import Delta, EngineRequest, FinishReason, Task, TokenLogprobs


def sent(*frames: Frame) -> bytes:
    pipe = io.BytesIO()
    channel = Channel(io.BytesIO(), pipe)
    for frame in frames:
        channel.send(frame)
    return pipe.getvalue()


def received(data: bytes) -> list[Frame]:
    return list(Channel(io.BytesIO(data), io.BytesIO()))


def travelled(deltas: list[Delta]) -> list[Delta]:
    (frame,) = received(sent(codec.pack_deltas(deltas)))
    return codec.unpack_deltas(frame)


def test_frames_arrive_as_they_were_sent() -> None:
    first, second = Frame("a", [1, "ü", None, {"x": 0.5}]), Frame("b", {}, (b"12345", b""))
    assert received(sent(first, second)) == [first, second]


@pytest.mark.parametrize("cut", [1, 7, 8, 20, -1, -4])
def test_a_frame_that_was_not_written_whole_is_the_end(cut: int) -> None:
    whole = sent(Frame("whole", 1))
    data = sent(Frame("b", "text", (b"12345",)))
    assert received(whole + data[:cut]) == [Frame("whole", 1)]


@pytest.mark.parametrize("garbage", [b"Traceback (most recent", b"TrMf\xff\xff\xff\xff"])
def test_what_is_no_frame_is_said_and_not_allocated(garbage: bytes) -> None:
    with pytest.raises(EngineError, match="no message of ours"):
        received(garbage)


REQUESTS = [
    EngineRequest(id="a", prompt_token_ids=(1, 2)),
    EngineRequest(id="b", prompt_token_ids=(7,), task=Task.LOGITS, salt=bytes(range(256)), priority=-3, arrival=1.5),
    EngineRequest(
        id="c",
        prompt_token_ids=(3,),
        eos_token_ids=(1, 2),
        sampling=SamplingParams(
            max_tokens=None, temperature=0.3, top_k=5, seed=2**64 - 1, n=3, logprobs=2, stop=("x", "\u2028"),
            logit_bias={5: -1e9, 7: math.inf}, stop_token_ids=[9], dry_multiplier=0.5, dry_sequence_breakers=(),
            constraint=Constraint.json_schema({"type": "object"}).triggered(("<x>", 5), again=True),
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.id)
def test_requests_travel_whole(request_: EngineRequest) -> None:
    (frame,) = received(sent(Frame("add", codec.pack(request_))))
    assert codec.unpack_request(frame.body) == request_


DELTAS = [
    Delta(request_id="a", token_ids=(5,), cached_tokens=32),
    Delta(request_id="a", index=2, token_ids=(5, 6), finish_reason=FinishReason.STOP, stop_token=6),
    Delta(
        request_id="b",
        token_ids=(1,),
        logprobs=(TokenLogprobs(token_id=1, logprob=-math.inf, rank=3, top=((2, -0.5), (1, -math.inf))),),
        prompt_logprobs=(None, TokenLogprobs(token_id=4, logprob=-2.0, rank=1)),
    ),
    Delta(request_id="c", finish_reason=FinishReason.ERROR, error="it \u2028 failed", error_code="invalid_grammar"),
    Delta(request_id="d", finish_reason=FinishReason.CANCELED),
]


def test_deltas_travel_whole() -> None:
    found = travelled(DELTAS)
    assert found == DELTAS
    assert all(type(one.finish_reason) is FinishReason for one in found if one.finish_reason is not None)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (0, 4)])
def test_arrays_travel_as_they_are(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values[..., :1] = np.nan
    first, second = travelled([
        Delta(request_id="a", finish_reason=FinishReason.STOP, output=values),
        Delta(request_id="b", finish_reason=FinishReason.STOP, output=values[::-1]),
    ])  # fmt: skip
    for one, right in ((first, values), (second, values[::-1])):
        assert isinstance(one.output, np.ndarray)
        assert (one.output.dtype, one.output.shape) == (np.float32, shape)
        assert one.output.tobytes() == np.ascontiguousarray(right).tobytes()


def test_errors_keep_their_class_and_foreign_ones_their_secrets() -> None:
    error = codec.unpack_error(codec.pack_error(OutOfMemoryError("too large", hint="buy memory")))
    assert (type(error), error.message, error.hint) == (OutOfMemoryError, "too large", "buy memory")
    foreign = codec.unpack_error(codec.pack_error(ValueError("/root/secret at 0x7f")))
    assert (type(foreign), "secret" in str(foreign), "ValueError" in str(foreign)) == (EngineError, False, True)
    strange = codec.unpack_error({"type": "TYPE_CHECKING", "message": "x", "hint": None})
    assert type(strange) is EngineError


def test_the_other_records_travel() -> None:
    info = EngineInfo(model="m", architecture="a", backend="b", device="cpu", dtype="float32", max_model_len=7)
    assert codec.unpack_info(codec.pack(info)) == info
    event = ProgressEvent("load", 3, 10, "x")
    assert codec.unpack_event(codec.pack(event)) == event
    stats = EngineStats(**dict.fromkeys(EngineStats.__annotations__, 1))
    assert codec.unpack_stats(codec.pack(stats)) == stats
