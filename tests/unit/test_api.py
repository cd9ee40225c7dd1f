# SPDX-License-Identifier: Apache-2.0
"""``LLM`` over a model whose answers are written here: results, streams, stopping, errors, several threads."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tramontane import LLM, SamplingParams
from tramontane.api import Completion, CompletionDelta
from tramontane.errors import EngineClosedError, EngineError, PromptTooLongError, RequestError
from tramontane.requests import Delta, FinishReason
from tramontane.testing.answering import BOS, EOS, answering_llm

ALL = SamplingParams(max_tokens=None)


def _answer(prompt: str) -> str:
    return {"naïve": "café ☕ 🌬 fin", "stop": "one STOP two", "count": "0123456789"}.get(prompt, f"<{prompt}>")


@pytest.fixture
def llm() -> Iterator[LLM]:
    with answering_llm(_answer) as llm:
        yield llm


def _wait(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def _idle(llm: LLM) -> bool:
    stats = llm.stats()
    return stats.running == 0 and stats.waiting == 0 and stats.blocks_used == 0


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_completion_says_everything(llm: LLM) -> None:
    out = llm.generate("hi", ALL)
    assert isinstance(out, Completion)
    assert out.text == "<hi>"
    assert out.token_ids == (*b"<hi>", EOS)
    assert out.prompt_token_ids == (BOS, *b"hi")
    assert out.finish_reason is FinishReason.STOP
    assert out.index == 0
    assert out.logprobs is None
    usage = out.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (3, 5, 0)
    assert 0 < usage.ttft_s <= usage.total_s
    assert usage.prompt_tps == pytest.approx(3 / usage.ttft_s)
    assert usage.decode_tps == pytest.approx(4 / (usage.total_s - usage.ttft_s))


def test_batches_keep_their_order(llm: LLM) -> None:
    prompts = [f"p{i}" * (1 + i % 7) for i in range(40)]
    outs = llm.generate(prompts, ALL)
    assert [out.text for out in outs] == [f"<{prompt}>" for prompt in prompts]
    mixed = llm.generate(["a", [98, 99], np.array([100])], ALL)
    assert [out.text for out in mixed] == ["<a>", "<bc>", "<d>"]


def test_each_prompt_may_have_its_own_parameters(llm: LLM) -> None:
    outs = llm.generate(["count", "count"], [SamplingParams(max_tokens=2), SamplingParams(max_tokens=5)])
    assert [out.text for out in outs] == ["01", "01234"]
    assert {out.finish_reason for out in outs} == {FinishReason.LENGTH}
    with pytest.raises(RequestError, match="3 prompts came with 2 sampling parameters"):
        llm.generate(["a", "b", "c"], [ALL, ALL])
    for wrong in ({"max_tokens": 1}, "greedy", 3):
        with pytest.raises(RequestError, match="must be SamplingParams"):
            llm.generate("a", wrong)  # type: ignore[call-overload]


def test_a_second_prompt_finds_the_first_in_the_cache(llm: LLM) -> None:
    prompt = "x" * 100
    assert llm.generate(prompt, ALL).usage.cached_tokens == 0
    again = llm.generate(prompt, ALL)
    assert 64 <= again.usage.cached_tokens < 101
    assert again.usage.prompt_tps == pytest.approx((101 - again.usage.cached_tokens) / again.usage.ttft_s)
    assert llm.generate(prompt, ALL, salt=b"other").usage.cached_tokens == 0


def test_several_choices(llm: LLM) -> None:
    out = llm.generate("hi", SamplingParams(max_tokens=None, n=3, logprobs=0))
    assert [choice.index for choice in out.choices] == [0, 1, 2]
    assert {choice.text for choice in out.choices} == {"<hi>"}
    assert out.usage.completion_tokens == 15
    assert [len(choice.logprobs or ()) for choice in out.choices] == [5, 5, 5]


def test_log_probabilities(llm: LLM) -> None:
    out = llm.generate("hi", SamplingParams(max_tokens=2, logprobs=1, prompt_logprobs=0))
    assert out.logprobs is not None
    assert [entry.token_id for entry in out.logprobs] == list(out.token_ids)
    assert out.prompt_logprobs is not None
    assert out.prompt_logprobs[0] is None
    assert [entry.token_id for entry in out.prompt_logprobs if entry] == [*b"hi"]


def test_logits_and_embeddings(llm: LLM) -> None:
    logits = llm.logits([5, 6, 7])
    assert logits.dtype == np.float32
    assert logits.argmax(axis=1).tolist() == [5, 6, 7]
    both = llm.logits(["ab", [1]])
    assert [part.shape for part in both] == [(3, llm.vocab_size), (1, llm.vocab_size)]
    vectors = llm.embed(["a", "bcd"])
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[2.0, BOS + ord("a")], [4.0, BOS + sum(b"bcd")]]
    assert llm.embed("a").shape == (2,)


def test_tokens_and_text(llm: LLM) -> None:
    assert llm.tokenize("é") == [BOS, 0xC3, 0xA9]
    assert llm.tokenize("é", add_special=False) == [0xC3, 0xA9]
    assert llm.detokenize([BOS, 0xC3, 0xA9]) == "é"
    assert (llm.name, llm.max_model_len, llm.has_chat_template) == ("answering", 1024, True)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_never_cuts_a_character(llm: LLM) -> None:
    deltas = list(llm.generate("naïve", ALL, stream=True))
    assert "".join(delta.text for delta in deltas) == "café ☕ 🌬 fin"
    assert "\ufffd" not in "".join(delta.text for delta in deltas)
    assert tuple(token for delta in deltas for token in delta.token_ids) == (*"café ☕ 🌬 fin".encode(), EOS)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    last = deltas[-1]
    assert last.finish_reason is FinishReason.STOP
    assert last.completion is not None
    assert last.completion.text == "café ☕ 🌬 fin"
    assert last.usage == last.completion.usage
    assert [delta.at for delta in deltas] == sorted(delta.at for delta in deltas)


def test_a_stream_of_several_prompts_says_which(llm: LLM) -> None:
    texts: dict[tuple[int, int], str] = {}
    ends = []
    for delta in llm.generate(["a", "bb"], SamplingParams(max_tokens=None, n=2), stream=True):
        texts[delta.prompt, delta.index] = texts.get((delta.prompt, delta.index), "") + delta.text
        ends += [delta.prompt] if delta.completion else []
    assert texts == {(0, 0): "<a>", (0, 1): "<a>", (1, 0): "<bb>", (1, 1): "<bb>"}
    assert sorted(ends) == [0, 1]


def test_a_slow_reader_gets_fewer_longer_pieces() -> None:
    long = "abcdefghij" * 60
    with answering_llm(lambda prompt: long) as llm:
        stream = llm.generate("x", ALL, stream=True)
        _wait(lambda: llm.stats().requests == 1 and _idle(llm))
        deltas: list[CompletionDelta] = list(stream)
    assert len(deltas) < 100
    assert "".join(delta.text for delta in deltas) == long
    assert sum(len(delta.token_ids) for delta in deltas) == len(long) + 1
    assert deltas[-1].finish_reason is FinishReason.STOP


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_ends_text_and_request(llm: LLM, include: bool) -> None:
    params = SamplingParams(max_tokens=None, stop="STOP", include_stop=include, ignore_eos=True)
    deltas = list(llm.generate("stop", params, stream=True))
    assert "".join(delta.text for delta in deltas) == ("one STOP" if include else "one ")
    assert all("S" not in delta.text for delta in deltas[:-1])
    assert deltas[-1].finish_reason is FinishReason.STOP
    assert bytes(deltas[-1].completion.token_ids) == b"one STOP"  # type: ignore[union-attr]
    _wait(lambda: _idle(llm))


def test_a_stop_string_ends_one_choice_and_not_the_others(llm: LLM) -> None:
    params = SamplingParams(max_tokens=20, stop="STOP", n=3)
    out = llm.generate("stop", params)
    assert [choice.text for choice in out.choices] == ["one "] * 3
    assert {choice.finish_reason for choice in out.choices} == {FinishReason.STOP}


def test_a_choice_that_a_stop_string_ended_may_be_cancelled_before_the_others_end(llm: LLM) -> None:
    answers = llm._service.maker.generate("x", SamplingParams(n=2, stop="S", max_tokens=9))
    (name,) = answers.open_ids
    answers.take(Delta(request_id=name, index=0, token_ids=tuple(b"aS")), 1.0)
    answers.take(Delta(request_id=name, index=0, finish_reason=FinishReason.CANCELED), 2.0)
    answers.take(Delta(request_id=name, index=1, token_ids=tuple(b"b"), finish_reason=FinishReason.LENGTH), 3.0)
    assert answers.finished
    assert answers.error is None
    choices = answers.completions()[0].choices
    assert [(one.text, one.finish_reason) for one in choices] == [("a", "stop"), ("b", "length")]


# --- leaving early ----------------------------------------------------------------------------------------------------


@pytest.fixture
def endless() -> Iterator[LLM]:
    """A model that says a word again and again, and takes its time."""
    with answering_llm(lambda prompt: "word " * 190, step_s=0.001) as llm:
        yield llm


def test_a_closed_stream_frees_its_blocks(endless: LLM) -> None:
    with endless.generate(["a", "b"], ALL, stream=True) as stream:
        next(stream)
        assert endless.stats().running > 0
    _wait(lambda: _idle(endless))
    assert list(stream) == []


def test_a_forgotten_stream_frees_its_blocks(endless: LLM) -> None:
    for delta in endless.generate("a", ALL, stream=True):
        assert delta.token_ids
        break
    started = endless.generate("b", ALL, stream=True)
    del started
    gc.collect()
    _wait(lambda: _idle(endless))


def test_cancel_ends_a_waiting_reader_with_what_there_is(endless: LLM) -> None:
    stream = endless.generate("a", ALL, stream=True)
    threading.Timer(0.1, stream.cancel).start()
    out = stream.completion()
    assert out.finish_reason is FinishReason.CANCELED
    assert out.text.startswith("word")
    assert 0 < out.usage.completion_tokens < 900
    _wait(lambda: _idle(endless))


def test_closing_ends_calls_that_wait(endless: LLM) -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            endless.generate("a", ALL)
        except EngineClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    _wait(lambda: endless.stats().running == 1)
    endless.close()
    thread.join(5)
    assert len(caught) == 1
    endless.close()
    with pytest.raises(EngineClosedError):
        endless.generate("b")


def test_a_model_that_nobody_holds_is_stopped() -> None:
    llm = answering_llm(_answer)
    engine = llm._service.running
    llm.generate("a")
    gc.disable()
    try:
        del llm
        assert engine.closed
    finally:
        gc.enable()


@pytest.mark.skipif(os.name != "posix", reason="a signal that interrupts a wait")
def test_ctrl_c_while_waiting_ends_the_request(endless: LLM) -> None:
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        endless.generate("a", ALL)
    _wait(lambda: endless.stats().requests == 1 and _idle(endless))
    assert endless.generate("b", SamplingParams(max_tokens=4)).text == "word"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_prompts_are_refused_and_the_engine_goes_on(llm: LLM) -> None:
    for prompts, words in [
        ([], "list is empty"),
        ([[]], "the prompt has no tokens"),
        (["ok", []], "prompt 1 has no tokens"),
        (["ok", [9999]], "prompt 1 holds token id 9999"),
        (None, "NoneType"),
        ([1.5], "float"),
    ]:
        with pytest.raises(RequestError, match=words):
            llm.generate(prompts)
    with pytest.raises(PromptTooLongError, match="1025 tokens; the longest that fits is 1023"):
        llm.generate("x" * 1024)
    assert llm.generate("x" * 1022, ALL).finish_reason is FinishReason.LENGTH
    assert llm.logits([1] * 1024).shape[0] == 1024
    assert llm.generate("hi", ALL).text == "<hi>"
    assert llm.stats().requests == 3


def test_the_longest_prompt_is_what_the_cache_holds() -> None:
    with (
        answering_llm(_answer, num_blocks=5) as llm,
        pytest.raises(PromptTooLongError, match="the longest that fits is 63"),
    ):
        llm.generate("x" * 200)


def test_a_failed_step_is_an_error_of_its_requests_only() -> None:
    failing = [True]

    def fail(plan: object) -> Exception | None:
        return RuntimeError("secret address 0x7f") if failing.pop() else failing.append(False)  # type: ignore[func-returns-value]

    with answering_llm(_answer, fail=fail) as llm:
        with pytest.raises(EngineError, match="RuntimeError") as caught:
            llm.generate(["a", "b"])
        assert "0x7f" not in str(caught.value)
        failing[:] = [False]
        assert llm.generate("hi", ALL).text == "<hi>"
        assert _idle(llm)


def test_a_model_without_tokenizer_takes_and_gives_ids() -> None:
    with answering_llm(_answer, tokenizer=False, chat=False) as llm:
        with pytest.raises(RequestError, match="has no tokenizer"):
            llm.generate("hi")
        out = llm.generate([*b"hi"], SamplingParams(max_tokens=4))
        assert bytes(out.token_ids) == b"<hi>"
        assert out.text == ""
        with pytest.raises(RequestError, match="has no tokenizer"):
            llm.generate([*b"hi"], SamplingParams(stop="x"))


# --- chat -------------------------------------------------------------------------------------------------------------


def test_chat_renders_the_template(llm: LLM) -> None:
    out = llm.chat([{"role": "user", "content": "hi"}], ALL)
    assert out.text == "<<user>hi\n<assistant>>"
    assert bytes(llm.render_chat([{"role": "user", "content": "hi"}])) == b"<user>hi\n<assistant>"
    streamed = "".join(delta.text for delta in llm.chat([{"role": "user", "content": "hi"}], ALL, stream=True))
    assert streamed == out.text


@pytest.mark.parametrize("messages", ["hi", {"role": "user"}, [], None, 3])
def test_messages_must_be_messages(llm: LLM, messages: object) -> None:
    with pytest.raises(RequestError, match="must be a list of messages"):
        llm.chat(messages)  # type: ignore[call-overload]


def test_chat_needs_a_template() -> None:
    with answering_llm(_answer, chat=False) as llm:
        assert not llm.has_chat_template
        with pytest.raises(RequestError, match="has no chat template"):
            llm.chat([{"role": "user", "content": "hi"}])


# --- threads ----------------------------------------------------------------------------------------------------------


def test_several_threads_share_a_model(llm: LLM) -> None:
    def call(number: int) -> bool:
        if number % 3 == 0:
            stream = llm.generate(f"s{number}", ALL, stream=True)
            return "".join(delta.text for delta in stream) == f"<s{number}>"
        outs = llm.generate([f"a{number}", f"b{number}"], ALL)
        return [out.text for out in outs] == [f"<a{number}>", f"<b{number}>"]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(60)))
    _wait(lambda: _idle(llm))
