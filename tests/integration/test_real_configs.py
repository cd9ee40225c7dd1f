# SPDX-License-Identifier: Apache-2.0
"""Published configurations: each is read, built on paper, and counts as many parameters as its publisher does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tramontane.backends.reference import ReferenceBackend
from tramontane.checkpoint import Checkpoint
from tramontane.errors import ConfigError, UnknownNameError
from tramontane.load import LoadOptions
from tramontane.load.design import Design, design
from tramontane.plugins import installed

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "configs"

PUBLISHED: Mapping[str, float] = {
    "Llama-3.1-8B": 8.03,
    "llama3_1_8b": 8.03,
    "Llama-3.1-70B": 70.6,
    "llama3_1_70b": 70.6,
    "Llama-3.1-405B": 405.9,
    "llama3_2_1b": 1.24,
    "llama3_2_3b": 3.21,
    "llama2_7b": 6.74,
    "llama2_13b": 13.02,
    "llama2_70b": 68.98,
    "codellama_7b": 6.74,
    "codellama_13b": 13.02,
    "codellama_34b": 33.74,
    "tinyllama_1b": 1.10,
    "smollm_135m": 0.1345,
    "smollm2_135m": 0.1345,
    "smollm_360m": 0.362,
    "smollm2_360m": 0.362,
    "smollm_1_7b": 1.71,
    "Mixtral-8x7B": 46.7,
    "Mixtral-8x22B": 140.6,
    "mistral_7b": 7.24,
    "Qwen3-0.6B": 0.6,
    "qwen3_0.6b": 0.6,
    "Qwen3-1.7B": 1.72,
    "qwen3_1.7b": 1.72,
    "Qwen3-8B": 8.19,
    "Qwen3-32B": 32.8,
    "Qwen3-30B-A3B": 30.5,
    "Qwen3-235B-A22B": 235.0,
    "Qwen3-Coder-480B-A35B": 480.0,
    "qwen2_0_5b": 0.494,
    "qwen2_1_5b": 1.54,
    "qwen2_7b": 7.62,
    "qwen2.5_3b": 3.09,
    "qwen2moe": 14.3,
    "DeepSeek-V3_": 671.0,
    "DeepSeek-V3.1": 671.0,
    "DeepSeek-R1": 671.0,
    "deepseek_v2_lite": 15.7,
    "Kimi-K2-Instruct": 1026.0,
    "gpt-oss-20b": 20.9,
    "gpt-oss-120b": 116.8,
    "gemma_2b": 2.51,
    "gemma2_2b": 2.61,
    "gemma2_9b": 9.24,
    "gemma2_27b": 27.2,
    "gemma3_1b": 1.0,
    "phi-3_5/": 3.82,
    "phi-4": 3.84,
    "microsoft_phi3_mini": 3.82,
    "microsoft_phi_35_mini": 3.82,
    "microsoft_phi4_reasoning": 3.84,
    "starcoder2": 7.17,
    "aya-23": 8.03,
    "olmo2_7b": 7.30,
    "olmo2_13b": 13.7,
    "olmo2_32b": 32.2,
}
"""Part of a file's path -> 10^9 parameters, tied heads once, as model cards and papers state them."""
WITHIN = 0.01

SEES_OR_HEARS = "its language model stands behind an encoder of images or sounds"
ENCODER = "no language model"
NEW_ATTENTION = "attends in a way that no op here does (sparse, gated or recurrent)"
OLD = "older than what is served"
OTHER_FAMILY = "a text model of another family"
OTHERS: Mapping[str, str] = {
    "BaichuanForCausalLM": OLD,
    "BertModel": ENCODER,
    "CLIPModel": ENCODER,
    "ChatGLMModel": OLD,
    "DeciLMForCausalLM": OTHER_FAMILY,
    "DeepseekForCausalLM": OLD,
    "DeepseekV32ForCausalLM": NEW_ATTENTION,
    "DeepseekV4ForCausalLM": NEW_ATTENTION,
    "GPT2LMHeadModel": OLD,
    "GPTBigCodeForCausalLM": OLD,
    "GPTJForCausalLM": OLD,
    "GPTNeoXForCausalLM": OLD,
    "Gemma3ForConditionalGeneration": SEES_OR_HEARS,
    "Gemma4ForConditionalGeneration": SEES_OR_HEARS,
    "Glm4vMoeForConditionalGeneration": SEES_OR_HEARS,
    "GlmMoeDsaForCausalLM": NEW_ATTENTION,
    "InternLM2ForCausalLM": OTHER_FAMILY,
    "InternLMForCausalLM": OLD,
    "KimiK25ForConditionalGeneration": SEES_OR_HEARS,
    "KimiK3ForConditionalGeneration": SEES_OR_HEARS,
    "Llama4ForConditionalGeneration": SEES_OR_HEARS,
    "LlavaForConditionalGeneration": SEES_OR_HEARS,
    "LlavaNextForConditionalGeneration": SEES_OR_HEARS,
    "MiMoForCausalLM": OTHER_FAMILY,
    "MiMoV2FlashForCausalLM": OTHER_FAMILY,
    "MiniCPMForCausalLM": OTHER_FAMILY,
    "MiniMaxM2ForCausalLM": OTHER_FAMILY,
    "MiniMaxM3ForCausalLM": NEW_ATTENTION,
    "Mistral3ForConditionalGeneration": SEES_OR_HEARS,
    "MllamaForConditionalGeneration": SEES_OR_HEARS,
    "NemotronHForCausalLM": NEW_ATTENTION,
    "OrionForCausalLM": OLD,
    "Phi3VForCausalLM": SEES_OR_HEARS,
    "Phi4MMForCausalLM": SEES_OR_HEARS,
    "QWenLMHeadModel": OLD,
    "Qwen2_5_VLForConditionalGeneration": SEES_OR_HEARS,
    "Qwen3VLForConditionalGeneration": SEES_OR_HEARS,
    "Qwen3VLMoeForConditionalGeneration": SEES_OR_HEARS,
    "Qwen3_5ForConditionalGeneration": SEES_OR_HEARS,
    "Qwen3_5MoeForConditionalGeneration": SEES_OR_HEARS,
    "RwkvForCausalLM": NEW_ATTENTION,
    "StableLmForCausalLM": OTHER_FAMILY,
    "Step3p7FlashForCausalLM": OTHER_FAMILY,
    "T5ForConditionalGeneration": ENCODER,
    "WhisperForConditionalGeneration": ENCODER,
}
"""Classes of the files that no plugin runs, and why."""
UNREADABLE: Mapping[str, str] = {
    "mlc-presets/phi-1_5/config.json": "hidden_size",  # Microsoft's first code said n_embd, n_head, n_layer
    "mlc-presets/phi-2/config.json": "hidden_size",
}
"""Files of classes that run, in spellings that do not: what the refusal must name."""


def read(path: Path) -> dict[str, Any]:
    """A configuration; the literals that one source of files wrote as texts are literals again."""
    literals = {"true": True, "false": False, "null": None}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {key: literals.get(value, value) if isinstance(value, str) else value for key, value in found.items()}


def files() -> dict[str, dict[str, Any]]:
    """Path below the folder -> content of everything that states an architecture."""
    paths = {path.relative_to(CONFIGS).as_posix(): path for path in sorted(CONFIGS.rglob("*.json"))}
    return {name: content for name, path in paths.items() if (content := read(path)).get("architectures")}


FILES = files()
absent = pytest.mark.skipif(not FILES, reason=f"the published configurations are not there: {CONFIGS}")


def known(content: Mapping[str, Any]) -> bool:
    return content["architectures"][0] in installed().catalogs.architectures


def parameters(wanted: bool) -> list[Any]:
    """The files whose class some plugin runs, or the others."""
    return [pytest.param(name, id=name) for name, content in FILES.items() if known(content) is wanted]


def on_paper(content: Mapping[str, Any]) -> Design:
    checkpoint = Checkpoint(path=Path("published"), config=content, tensors={})
    return design(checkpoint, LoadOptions(), installed(), ReferenceBackend())


def counted(made: Design) -> int:
    """Numbers that the model has learned."""
    return sum(prod(one.shape) for one in (*made.blueprint.matrices.values(), *made.blueprint.params.values()))


@absent
@pytest.mark.parametrize("name", [p for p in parameters(True) if p.id not in UNREADABLE])
def test_it_is_built_on_paper_and_counts_what_its_publisher_counts(name: str) -> None:
    made = on_paper(FILES[name])
    blueprint = made.blueprint
    assert made.layout.layers, "the model declares no caches"
    assert all(matrix.stored is None for matrix in blueprint.matrices.values())
    assert all(held.value is None for held in (*blueprint.params.values(), *blueprint.constants.values()))
    stated = [count for part, count in PUBLISHED.items() if part in name]
    for count in stated:
        assert counted(made) / 1e9 == pytest.approx(count, rel=WITHIN)


def test_a_published_model_without_a_file_here() -> None:
    """Qwen3-Next-80B-A3B by the sizes on its card, less the layer that drafts."""
    sizes = {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    }
    made = on_paper({"architectures": ["Qwen3NextForCausalLM"], "torch_dtype": "bfloat16", **sizes})
    assert len(made.layout.state_layers) == 2 * 36
    assert counted(made) / 1e9 == pytest.approx(80.0, rel=WITHIN)


@absent
@pytest.mark.parametrize("part", PUBLISHED)
def test_every_published_count_is_compared_with_something(part: str) -> None:
    assert any(part in name and known(content) for name, content in FILES.items())


@absent
@pytest.mark.parametrize("name", parameters(False))
def test_a_class_that_no_plugin_runs_is_refused_by_name(name: str) -> None:
    cls = FILES[name]["architectures"][0]
    assert cls in OTHERS, f"no plugin runs {cls}; say why in OTHERS"
    with pytest.raises(UnknownNameError, match=cls):
        on_paper(FILES[name])


@pytest.mark.parametrize("cls", OTHERS)
def test_the_list_of_others_is_true(cls: str) -> None:
    assert cls not in installed().catalogs.architectures, f"{cls} runs; take it off the list"


@absent
@pytest.mark.parametrize(("name", "missing"), UNREADABLE.items())
def test_another_spelling_is_refused_by_its_keys(name: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing}: is missing"):
        on_paper(FILES[name])
