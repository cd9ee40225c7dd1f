# SPDX-License-Identifier: Apache-2.0
"""Scripts become weights; what cannot become weights is refused with the names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tramontane_scripted.checkpoint import Script, reply_ids, write_scripted

from tramontane_loader_demo.plugin import FOLDER as TOKENIZER


def test_the_folder_is_a_hugging_face_checkpoint(tmp_path: Path) -> None:
    write_scripted(tmp_path / "made", TOKENIZER, Script(replies=["Hello.", "Goodbye."]))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    weights = load_file(tmp_path / "made" / "model.safetensors")
    assert config["architectures"] == ["ScriptedForCausalLM"]
    assert config["replies"] == 2
    assert {name: list(weight.shape) for name, weight in weights.items()} == {
        "marks.weight": [config["vocab_size"], 16],
        "bounds.weight": [2, 2],
        "script.weight": [config["script_rows"], config["hidden_size"]],
        "lm_head.weight": [config["vocab_size"], config["hidden_size"]],
    }


def test_the_rows_spell_the_replies(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    script = Script(replies=["Hello there.", [40, 41]], topics={" forest": ["Roar!"]})
    weights = load_file(write_scripted(tmp_path, TOKENIZER, script) / "model.safetensors")
    logits = weights["script.weight"] @ weights["lm_head.weight"].T
    said = logits.argmax(-1).tolist()
    end = tokenizer.token_to_id("<|im_end|>")
    bounds = weights["bounds.weight"].long().tolist()
    wanted = [[*reply_ids(tokenizer, reply), end] for reply in ("Hello there.", [40, 41], "Roar!", "Roar!")]
    assert [said[first : last + 1] for first, last in bounds] == wanted
    assert said[0] == end
    top = logits.topk(2, -1).values
    assert (top[:, 0] - top[:, 1]).min() > 16


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (Script(replies=["a"], cues=("two tokens at least",)), "not one"),
        (Script(replies=["a"], end="no such token"), "not one"),
        (Script(replies=["A little fox."], topics={" little": ["Hm."]}), "holds cues or topics"),
        (Script(replies=["say <|im_start|> again"]), "holds cues or topics"),
    ],
)
def test_an_impossible_script_is_refused(tmp_path: Path, script: Script, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        write_scripted(tmp_path, TOKENIZER, script)


def test_codes_are_the_same_every_time(tmp_path: Path) -> None:
    first = load_file(write_scripted(tmp_path / "a", TOKENIZER, Script(replies=["x"])) / "model.safetensors")
    second = load_file(write_scripted(tmp_path / "b", TOKENIZER, Script(replies=["x"])) / "model.safetensors")
    assert torch.equal(first["lm_head.weight"], second["lm_head.weight"])
