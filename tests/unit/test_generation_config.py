# SPDX-License-Identifier: Apache-2.0
"""What a model's generation config says is what its answers are drawn with, where it can be used."""

from __future__ import annotations

from tramontane import SamplingParams
from tramontane.api.request_maker import NEVER, default_sampling
from tramontane.testing.answering import answering_llm


def _answer(prompt: str) -> str:
    return "0123456789" if prompt == "count" else f"<{prompt}>"


def test_unusable_values_of_a_generation_config_are_left_out() -> None:
    assert default_sampling({"temperature": "hot", "top_p": 0, "top_k": None, "max_new_tokens": -1}) == {}
    assert default_sampling({"suppress_tokens": ["x"], "min_new_tokens": 2}) == {"min_tokens": 2}
    assert default_sampling({"suppress_tokens": [3]})["logit_bias"] == {3: NEVER}
    assert default_sampling({"do_sample": True, "max_length": 20}) == {}


def test_defaults_come_from_the_generation_config() -> None:
    config = {
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": "many",
        "max_new_tokens": 3,
        "do_sample": True,
        "eos_token_id": 2,
    }
    with answering_llm(_answer, generation_config=config) as llm:
        params = llm.default_params()
        assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.6, 0.9, 0, 3)
        assert llm.default_params(temperature=0).temperature == 0
        assert llm.generate("count").text == "012"
        assert llm.chat([{"role": "user", "content": "x"}]).text == "<<user>x\n<assistant>>"
        assert llm.generate("count", SamplingParams(max_tokens=1)).text == "0"
    with answering_llm(_answer, generation_config={"do_sample": False}) as llm:
        assert llm.default_params().temperature == 0
