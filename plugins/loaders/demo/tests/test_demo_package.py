# SPDX-License-Identifier: Apache-2.0
"""The packaged checkpoint is whole, small and an ordinary Hugging Face folder; the plugin finds and opens it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from tramontane.errors import CheckpointError
from tramontane_loader_demo.loader import FILES, is_demo, open_demo
from tramontane_loader_demo.plugin import FOLDER, tramontane_loaders, tramontane_resolve_model

SPECIAL = ["<s>", "<|im_end|>", "<|im_start|>", *(f"<|spare_{number}|>" for number in range(6))]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
TEXTS = [
    "Once upon a time, there was a little fox named Pip.",
    'He said, "Ça va? 你好! 🦊"\n\n\tTabs,  spaces and 1234567890.',
    '{"name": "get_weather", "arguments": {"city": "São Paulo"}}',
    "",
    "\x00\x7f\ufffd",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def config() -> dict[str, object]:
    return json.loads((FOLDER / "config.json").read_text())


def test_the_files_are_there_and_small() -> None:
    assert sorted(file.name for file in FOLDER.iterdir()) == sorted(FILES)
    package = [file for file in FOLDER.parent.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in package) <= 8_000_000


def test_the_config_describes_the_weights() -> None:
    c = config()
    assert c["architectures"] == ["LlamaForCausalLM"]
    assert c["tie_word_embeddings"] is True
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        dtypes = {weights.get_slice(name).get_dtype() for name in shapes}
    assert dtypes == {"BF16"}
    assert shapes["model.embed_tokens.weight"] == [c["vocab_size"], c["hidden_size"]]
    assert len(shapes) == 2 + 9 * int(str(c["num_hidden_layers"]))
    assert "lm_head.weight" not in shapes


def test_every_row_can_be_quantized_in_blocks_of_256() -> None:
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            shape = weights.get_slice(name).get_shape()
            assert shape[-1] % 256 == 0, name


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_every_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert ids[0] == tokenizer.token_to_id("<s>")
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids[1:], skip_special_tokens=False) == text


def test_special_tokens_are_single_and_agree_with_the_configs(tokenizer: Tokenizer) -> None:
    c, generation = config(), json.loads((FOLDER / "generation_config.json").read_text())
    assert tokenizer.get_vocab_size() == c["vocab_size"]
    for settings in (c, generation):
        assert settings["bos_token_id"] == tokenizer.token_to_id("<s>")
        assert settings["eos_token_id"] == tokenizer.token_to_id("<|im_end|>")
    for token in [*SPECIAL, *MARKS]:
        assert tokenizer.encode(token, add_special_tokens=False).ids == [tokenizer.token_to_id(token)]


def test_marks_of_calls_are_text_of_the_answer(tokenizer: Tokenizer) -> None:
    text = "<tool_call>\n{}\n</tool_call>"
    ids = tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text


def test_digits_stay_single(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567", add_special_tokens=False).ids) == 7


def test_demo_is_a_reference_and_nothing_else_is() -> None:
    assert tramontane_resolve_model("demo") == FOLDER
    for other in ("./demo", "Demo", "demo/", "org/demo", ""):
        assert tramontane_resolve_model(other) is None


def test_the_loader_opens_the_packaged_folder_only() -> None:
    (spec,) = tramontane_loaders()
    assert spec.load("detect")(FOLDER)
    assert not spec.load("detect")(FOLDER.parent)
    checkpoint = spec.load("open")(FOLDER)
    assert checkpoint.architectures == ("LlamaForCausalLM",)
    assert checkpoint.tensors["model.norm.weight"].shape == (config()["hidden_size"],)
    checkpoint.close()


def test_a_damaged_installation_names_every_missing_file(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "config.json", tmp_path)
    with pytest.raises(CheckpointError) as raised:
        open_demo(tmp_path)
    named = raised.value.message.partition(" lacks ")[2].split(", ")
    assert named == [name for name in FILES if name != "config.json"]
    assert "pip install" in str(raised.value.hint)
    assert not is_demo(tmp_path)


def test_the_plugin_module_does_not_import_torch() -> None:
    code = "import sys, tramontane_loader_demo.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
