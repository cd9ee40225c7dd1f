# SPDX-License-Identifier: Apache-2.0
"""The API over the demo model, by plain HTTP and by OpenAI's own client."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tramontane.errors import PluginError
from tramontane.host import Host
from tramontane.records import resolve
from tramontane_frontend_openai.app import make_app
from tramontane_frontend_openai.plugin import tramontane_frontends

pytest.importorskip("tramontane_loader_demo", reason="serves the demo model")

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}assistant:{% endif %}"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    host = Host()
    host.add("demo", num_blocks=200)
    host.add("talker", "demo", num_blocks=200, chat_template=TEMPLATE)
    with TestClient(make_app(host)) as made:
        yield made
    host.close()


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json={"model": "demo", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, path: str, **body: Any) -> list[Any]:
    answer = client.post(path, json={"model": "demo", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


GREEDY = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}


def test_a_stream_says_what_the_whole_answer_says(client: TestClient) -> None:
    whole = post(client, "/completions", **GREEDY)
    (choice,) = whole["choices"]
    chunks = events(client, "/completions", **GREEDY, stream_options={"include_usage": True})
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == choice["text"]
    assert chunks[-2]["choices"][0]["finish_reason"] == choice["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 24
    assert len({c["id"] for c in chunks}) == 1


def test_lists_of_prompts_and_token_ids(client: TestClient) -> None:
    ids = [post(client, "/tokenize", prompt=text)["tokens"] for text in ("Once upon a time", "One day")]
    texts = post(client, "/completions", **{**GREEDY, "prompt": ["Once upon a time", "One day"]})
    numbers = post(client, "/completions", **{**GREEDY, "prompt": ids})
    assert [c["text"] for c in texts["choices"]] == [c["text"] for c in numbers["choices"]]
    assert [c["index"] for c in texts["choices"]] == [0, 1]
    single = post(client, "/completions", **{**GREEDY, "prompt": ids[1]})
    assert single["choices"][0]["text"] == texts["choices"][1]["text"]


def test_n_choices_with_a_seed_differ_and_repeat(client: TestClient) -> None:
    body = {"prompt": "Once", "max_tokens": 12, "temperature": 1.0, "n": 3, "seed": 7}
    first, again = post(client, "/completions", **body), post(client, "/completions", **body)
    texts = [c["text"] for c in first["choices"]]
    assert texts == [c["text"] for c in again["choices"]]
    assert len(set(texts)) > 1


def test_best_of_keeps_the_likeliest(client: TestClient) -> None:
    body = {"prompt": "Once", "max_tokens": 8, "temperature": 1.2, "seed": 3, "logprobs": 0}
    every = post(client, "/completions", **body, n=4)["choices"]
    (best,) = post(client, "/completions", **body, best_of=4)["choices"]

    def score(choice: Any) -> float:
        return float(np.mean(choice["logprobs"]["token_logprobs"]))

    assert best["text"] == max(every, key=score)["text"]


def test_echo_and_logprobs(client: TestClient) -> None:
    (choice,) = post(client, "/completions", **GREEDY, echo=True, logprobs=2)["choices"]
    assert choice["text"].startswith("Once upon a time")
    found = choice["logprobs"]
    assert found["token_logprobs"][0] is None
    assert all(p <= 0 for p in found["token_logprobs"][1:])
    assert all(len(top) == 2 for top in found["top_logprobs"][1:])
    assert len(found["tokens"]) == len(found["text_offset"]) == len(found["token_logprobs"])


def test_an_echo_with_logprobs_is_streamed_as_it_is_told_whole(client: TestClient) -> None:
    body = {**GREEDY, "prompt": ["Once upon", "One day"], "max_tokens": 5, "n": 2, "echo": True, "logprobs": 1}
    whole = {choice["index"]: choice for choice in post(client, "/completions", **body)["choices"]}
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    told: dict[int, dict[str, Any]] = {index: {"text": "", **{name: [] for name in names}} for index in whole}
    for chunk in events(client, "/completions", **body):
        (choice,) = chunk["choices"]
        told[choice["index"]]["text"] += choice["text"]
        for name in names:
            told[choice["index"]][name] += (choice["logprobs"] or {}).get(name, [])
    for index, choice in whole.items():
        assert told[index]["text"] == choice["text"]
        assert told[index]["tokens"] == choice["logprobs"]["tokens"]
        assert told[index]["text_offset"] == choice["logprobs"]["text_offset"]
        assert told[index]["token_logprobs"][0] is None
        np.testing.assert_allclose(
            told[index]["token_logprobs"][1:], choice["logprobs"]["token_logprobs"][1:], atol=0.1
        )


def test_every_chunk_tells_the_usage_to_who_asks(client: TestClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = events(client, "/completions", **GREEDY, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == last["usage"]["completion_tokens"] == 24
    assert {chunk["usage"]["prompt_tokens"] for chunk in (*chunks, last)} == {last["usage"]["prompt_tokens"]}
    body = {"model": "talker", "messages": TURN, "max_tokens": 6, "ignore_eos": True}
    assert events(client, "/chat/completions", **body, stream_options=options)[-2]["usage"]["completion_tokens"] == 6
    assert all("usage" not in chunk for chunk in events(client, "/chat/completions", **body))


def test_stop_strings_and_logit_bias(client: TestClient) -> None:
    (plain,) = post(client, "/completions", **GREEDY)["choices"]
    word = plain["text"].split()[3]
    (cut,) = post(client, "/completions", **GREEDY, stop=[word])["choices"]
    assert cut["text"] == plain["text"].partition(word)[0]
    assert cut["finish_reason"] == "stop"
    token = post(client, "/tokenize", prompt="!", add_special_tokens=False)["tokens"][-1]
    (biased,) = post(client, "/completions", **{**GREEDY, "max_tokens": 3}, logit_bias={str(token): 100})["choices"]
    assert biased["text"] == "!!!"


def test_chat_streamed_and_whole(client: TestClient) -> None:
    body = {
        "model": "talker",
        "messages": [{"role": "user", "content": "Tell me."}],
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
    }
    whole = post(client, "/chat/completions", **body, logprobs=True, top_logprobs=2)
    (choice,) = whole["choices"]
    assert choice["message"]["role"] == "assistant"
    assert len(choice["logprobs"]["content"]) == 12
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
    chunks = events(client, "/chat/completions", **body)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == choice["message"]["content"]


def test_embeddings_have_length_one_in_both_encodings(client: TestClient) -> None:
    plain = post(client, "/embeddings", input=["a cat", "a dog"])
    vectors = np.array([d["embedding"] for d in plain["data"]], np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    packed = post(client, "/embeddings", input=["a cat", "a dog"], encoding_format="base64")
    unpacked = [np.frombuffer(base64.b64decode(d["embedding"]), np.float32) for d in packed["data"]]
    np.testing.assert_allclose(np.stack(unpacked), vectors, atol=1e-6)
    assert plain["usage"]["prompt_tokens"] > 0


def test_tokens_there_and_back(client: TestClient) -> None:
    ids = post(client, "/tokenize", prompt="The fox – 狐", add_special_tokens=False)["tokens"]
    assert post(client, "/detokenize", tokens=ids)["prompt"] == "The fox – 狐"


def test_models_by_name(client: TestClient) -> None:
    assert [m["id"] for m in client.get("/models").json()["data"]] == ["demo", "talker"]
    assert client.get("/models/talker").json()["id"] == "talker"
    assert client.get("/models/nobody").status_code == 404
    assert "talker" in client.get("/models/walker").json()["error"]["message"], "it says which there are"


TURN = [{"role": "user", "content": "x"}]
WRONG: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("/completions", {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
    ("/completions", {"prompt": "a", "temperature": -1}, 400, "temperature"),
    ("/completions", {"prompt": "a", "n": 10**9}, 400, "n"),
    ("/completions", {"prompt": "a", "max_tokens": 2**63}, 400, "max_tokens"),
    ("/completions", {"prompt": "a", "top_k": -5}, 400, "top_k"),
    ("/completions", {"prompt": "a", "stop": ["x"] * 10**5}, 400, "stop"),
    ("/completions", {"prompt": "a", "suffix": "b"}, 400, "suffix"),
    ("/completions", {"prompt": "a", "best_of": 1, "n": 2}, 400, "best_of"),
    ("/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias"),
    ("/completions", {"prompt": []}, 400, "prompt"),
    ("/completions", {"prompt": [10**9]}, 400, None),
    ("/completions", {"prompt": "word " * 5000}, 400, None),
    ("/completions", {}, 400, "prompt"),
    ("/completions", {"prompt": "a", "model": "nobody"}, 404, None),
    ("/completions", {"prompt": "a", "adapter": "nobody"}, 400, None),
    ("/completions", {"prompt": "a", "adapter": 3}, 400, "adapter"),
    ("/chat/completions", {"model": "talker", "messages": "hi"}, 400, "messages"),
    ("/chat/completions", {"model": "talker", "messages": []}, 400, "messages"),
    ("/chat/completions", {"model": "talker", "messages": [{"content": "x"}]}, 400, "messages[0].role"),
    (
        "/chat/completions",
        {"model": "talker", "messages": [{"role": "user", "content": 3}]},
        400,
        "messages[0].content",
    ),
    ("/completions", {"prompt": "a", "best_of": 10**9}, 400, "best_of"),
    ("/chat/completions", {"model": "talker", "messages": TURN, "top_logprobs": 2}, 400, "top_logprobs"),
    (
        "/chat/completions",
        {"model": "talker", "messages": TURN, "max_completion_tokens": 0},
        400,
        "max_completion_tokens",
    ),
    ("/completions", {"prompt": "a", "grammar": {"type": "regex", "value": 3}}, 400, "grammar.value"),
    ("/completions", {"prompt": "a", "grammar": {"type": "magic", "value": "x"}}, 400, "grammar.type"),
    ("/completions", {"prompt": "a", "seed": 2**70}, 400, "seed"),
    ("/completions", {"prompt": "a", "cache_salt": "../x"}, 400, "cache_salt"),
    ("/completions", {"prompt": "a", "user": "x" * 10**6}, 400, "user"),
    ("/detokenize", {"tokens": [-1]}, 400, "tokens"),
    ("/detokenize", {"tokens": [2**80]}, 400, "tokens"),
    ("/embeddings", {"input": "a", "dimensions": 8}, 400, "dimensions"),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), WRONG)
def test_wrong_requests_are_refused_by_name_and_harm_nobody(
    client: TestClient, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(path, json={"model": "demo", **body})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (param or "").rpartition(".")[2] in error["message"]
    assert param is None or error["param"] == param
    assert post(client, "/completions", prompt="Once", max_tokens=1)["choices"], "the server goes on"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{", b'{"prompt": "\xff"}', b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200]
)
def test_bodies_that_are_no_request(client: TestClient, raw: bytes) -> None:
    answer = client.post("/completions", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_fields_and_paths(client: TestClient) -> None:
    assert post(client, "/completions", prompt="Once", max_tokens=1, brand_new_field={"x": 1})
    assert client.get("/nothing").status_code == 404
    assert client.get("/completions").status_code == 405
    assert client.get("/nothing").json()["error"]["message"]


def test_a_missing_form_library_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("app", "files"):
        monkeypatch.delitem(sys.modules, f"tramontane_frontend_openai.{name}")
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    (spec,) = tramontane_frontends()
    with pytest.raises(PluginError, match="python_multipart"):
        resolve(spec.app or "", spec)


def test_openais_own_client(client: TestClient) -> None:
    openai = pytest.importorskip("openai", reason="the client is a development dependency")
    made = openai.OpenAI(api_key="none", base_url="http://testserver/", http_client=client)
    whole = made.completions.create(model="demo", **GREEDY)
    streamed = made.completions.create(model="demo", stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    messages = [{"role": "user", "content": "Tell me."}]
    answer = made.chat.completions.create(
        model="talker", messages=messages, max_tokens=8, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 8
    assert made.models.list().data[0].id == "demo"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        made.completions.create(model="nobody", prompt="a")
