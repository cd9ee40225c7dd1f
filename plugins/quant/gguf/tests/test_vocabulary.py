# SPDX-License-Identifier: Apache-2.0
"""Tokenizers made from metadata: the ids that llama.cpp's own test vectors want, special tokens, templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from gguf_samples import SHARED, metadata, tensors

from tramontane.chat import find_template
from tramontane.checkpoint import Files
from tramontane.errors import CheckpointError
from tramontane.tokenizer import Tokenizer
from tramontane_quant_gguf.loader import open_gguf
from tramontane_quant_gguf.reading import Metadata
from tramontane_quant_gguf.vocabulary import files_of
from tramontane_quant_gguf.vocabulary.pre import PRE
from tramontane_quant_gguf.writing import write_file

FOLDER = SHARED / "tokenizers" / "ggml-vocab"
VOCABULARIES = sorted(path.name for path in FOLDER.glob("*.gguf") if path.with_name(f"{path.name}.out").is_file())
MARK = "\n__ggml_vocab_test__\n"
#: Vocabularies that only other projects' files hold: name of the vectors -> folder, vocabulary, merges.
OTHERS = {
    "qwen2": ("qwen2", "vocab.json", "merges.txt"),
    "llama-bpe": ("llama3-hf", "encoder.json", "vocab.bpe"),
}


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """Texts and their ids."""
    texts = (FOLDER / f"{name}.inp").read_bytes().decode("utf-8").split(MARK)
    lines = (FOLDER / f"{name}.out").read_text(encoding="ascii").splitlines()
    return [(text, [int(token) for token in line.split()]) for text, line in zip(texts, lines, strict=False)]


def check(tokenizer: Tokenizer, name: str) -> None:
    cases = vectors(name)
    assert len(cases) >= 46
    wrong = [(text, tokenizer.encode(text, add_special=False), ids) for text, ids in cases]
    assert [case for case in wrong if case[1] != case[2]] == []


@pytest.mark.skipif(not VOCABULARIES, reason="needs ../shared/data/tokenizers/ggml-vocab")
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_gives_exactly_the_expected_ids(name: str) -> None:
    with open_gguf(FOLDER / name) as checkpoint:
        check(Tokenizer.from_files(checkpoint.files), name)


@pytest.mark.parametrize("name", OTHERS)
def test_a_vocabulary_of_another_project_gives_exactly_the_expected_ids(name: str) -> None:
    folder, vocabulary, merges = OTHERS[name]
    folder_path = SHARED / "tokenizers" / folder
    if not (folder_path / vocabulary).is_file() or not (FOLDER / f"ggml-vocab-{name}.gguf.out").is_file():
        pytest.skip(f"needs ../shared/data/tokenizers/{folder} and the vectors in ggml-vocab")
    ids: dict[str, int] = json.loads((folder_path / vocabulary).read_text(encoding="utf-8"))
    lines = (folder_path / merges).read_text(encoding="utf-8").splitlines()
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tuple(sorted(ids, key=lambda token: ids[token])),
        "tokenizer.ggml.merges": tuple(line for line in lines if line and not line.startswith("#version")),
    }
    check(Tokenizer.from_files(files_of(Metadata(values, name))), f"ggml-vocab-{name}.gguf")


@pytest.mark.parametrize("name", PRE)
def test_every_way_to_cut_words_can_be_compiled_and_loses_nothing(name: str) -> None:
    text = "I'll pay 1234567 €, l'été, हिन्दी 漢字かな 한국어 ŠČ <|x|>\n\n  if a==b:\t\r\n end   "
    pieces = [text]
    for pattern in PRE[name].patterns:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        pieces = [cut for piece in pieces for cut, _ in split.pre_tokenize_str(piece)]
    assert "".join(pieces) == text
    assert len(pieces) > 1


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("llama3", ["I", "'LL", " pay", " ", "123", "456", "7"]),
        ("qwen2", ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "6", "7"]),
        ("tekken", ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "6", "7"]),
        ("gpt-4o", ["I'LL", " pay", " ", "123", "456", "7"]),
        ("superbpe", ["I'LL pay ", "1", "234", "567"]),
        ("afmoe", ["I", "'LL", " pay", " ", "1", "234", "567"]),
        ("starcoder", ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", "6", "7"]),
    ],
)
def test_words_are_cut_as_their_models_cut_them(name: str, pieces: list[str]) -> None:
    found = ["I'LL pay 1234567"]
    for pattern in PRE[name].patterns:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        found = [cut for piece in found for cut, _ in split.pre_tokenize_str(piece)]
    assert found == pieces


def files(tmp_path: Path, **changes: Any) -> Files:
    write_file(tmp_path / "model.gguf", metadata(**changes), tensors())
    return open_gguf(tmp_path / "model.gguf").files


def test_pieces_are_joined_by_score_and_bytes_are_the_last_resort(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(files(tmp_path))
    spelled = [tokenizer.backend.id_to_token(token) for token in tokenizer.encode("ab abc é", add_special=False)]
    assert spelled == ["\u2581ab", "\u2581ab", "c", "\u2581", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("ab abc é αβ\n", add_special=False)) == "ab abc é αβ\n"
    assert tokenizer.encode("", add_special=True) == [1]


def test_without_a_prefix_a_text_begins_as_it_is(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(files(tmp_path, **{"tokenizer.ggml.add_space_prefix": False}))
    spelled = [tokenizer.backend.id_to_token(token) for token in tokenizer.encode("ab ab", add_special=False)]
    assert spelled == ["ab", "\u2581ab"]
    assert tokenizer.decode(tokenizer.encode(" ab", add_special=False)) == " ab"


@pytest.mark.parametrize(
    ("flags", "ends"),
    [
        ({}, ([1], [])),
        ({"add_bos_token": False}, ([], [])),
        ({"add_eos_token": True}, ([1], [2])),
        ({"add_bos_token": False, "add_eos_token": True}, ([], [2])),
    ],
)
def test_what_is_put_around_a_text(tmp_path: Path, flags: dict[str, bool], ends: tuple[list[int], list[int]]) -> None:
    tokenizer = Tokenizer.from_files(files(tmp_path, **{f"tokenizer.ggml.{key}": flag for key, flag in flags.items()}))
    body = tokenizer.encode("ab", add_special=False)
    assert tokenizer.encode("ab") == [*ends[0], *body, *ends[1]]


def test_special_tokens_are_named_and_cannot_be_spelled(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(files(tmp_path, **{"tokenizer.ggml.eot_token_id": 1}))
    assert tokenizer.names == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.bos_id == 1
    assert tokenizer.eos_ids == (2, 1)
    assert not {1, 2} & set(tokenizer.encode("a</s><s>b", add_special=False))
    assert tokenizer.encode("</s>", add_special=False, parse_special=True)[-1] == 2


def test_user_defined_tokens_are_found_in_texts_but_are_no_control_tokens(tmp_path: Path) -> None:
    kinds = metadata()["tokenizer.ggml.token_type"].copy()
    tokens = list(metadata()["tokenizer.ggml.tokens"])
    kinds[270], tokens[270] = 4, "<think>"
    changes = {"tokenizer.ggml.token_type": kinds, "tokenizer.ggml.tokens": tokens}
    tokenizer = Tokenizer.from_files(files(tmp_path, **changes))
    assert 270 in tokenizer.encode("ab<think>ab", add_special=False)
    assert 270 not in tokenizer.special_ids


def test_repeated_and_empty_tokens_keep_their_ids_apart(tmp_path: Path) -> None:
    tokens = list(metadata()["tokenizer.ggml.tokens"])
    tokens[280] = tokens[281] = "abc"
    tokens[282] = ""
    tokenizer = Tokenizer.from_files(files(tmp_path, **{"tokenizer.ggml.tokens": tokens}))
    assert tokenizer.vocab_size == len(tokens)


def test_templates_come_with_the_file(tmp_path: Path) -> None:
    found = files(
        tmp_path,
        **{
            "tokenizer.chat_templates": ["tool_use", "../escape"],
            "tokenizer.chat_template.tool_use": "tools",
            "tokenizer.chat_template.../escape": "no",
        },
    )
    source = find_template(found)
    assert source is not None
    assert source.templates == {"default": metadata()["tokenizer.chat_template"], "tool_use": "tools"}
    assert find_template(files(tmp_path, **{"tokenizer.chat_template": None})) is None


def test_a_whole_tokenizer_in_the_metadata_wins(tmp_path: Path) -> None:
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hello": 5}, unk_token="hello")).to_str()
    tokenizer = Tokenizer.from_files(files(tmp_path, **{"tokenizer.huggingface.json": whole}))
    assert tokenizer.encode("hello", add_special=False) == [5]


def test_an_unknown_way_to_cut_words_says_what_to_do(tmp_path: Path) -> None:
    found = files(
        tmp_path,
        **{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "novel", "tokenizer.ggml.merges": ["a b"]},
    )
    with pytest.raises(CheckpointError, match=r"'novel'.*\n.*--tokenizer"):
        Tokenizer.from_files(found)


def test_a_file_without_vocabulary_has_no_tokenizer(tmp_path: Path) -> None:
    bare = {key: None for key in metadata() if key.startswith("tokenizer.")}
    assert not files(tmp_path, **bare).entries


def test_unigrams_take_the_likeliest_cut(tmp_path: Path) -> None:
    tokens = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581ab", "a", "b", "c", "bc", "\u2581a"]
    scores = [0, 0, 0, -3, -2, -4, -4, -4, -1, -1.5]
    found = files(
        tmp_path,
        **{
            "tokenizer.ggml.model": "t5",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": np.array(scores, np.float32),
            "tokenizer.ggml.token_type": np.array([3, 3, 2, *[1] * 7], np.int32),
            "tokenizer.ggml.bos_token_id": None,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 2,
        },
    )
    tokenizer = Tokenizer.from_files(found)
    assert tokenizer.encode("abc") == [9, 8, 1]
    assert tokenizer.encode("  ab ", add_special=False) == [4]
