# SPDX-License-Identifier: Apache-2.0
"""Files that strangers broke or built: a typed error, quickly, with little memory. Never anything else."""

from __future__ import annotations

import random
import struct
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gguf_samples import WORDS, info, metadata, pair, raw, tensors, text, write_sample

from tramontane.dialects import Dialect, dialect_of
from tramontane.errors import CheckpointError
from tramontane.memory import PeakMemory
from tramontane.plugins import installed
from tramontane.testing.fuzzing import feed, overwrite
from tramontane.tokenizer import Tokenizer
from tramontane_quant_gguf.loader import open_gguf, recognizes
from tramontane_quant_gguf.writing import write_file

HUGE = 2**63
U64 = struct.Struct("<Q").pack
U32 = struct.Struct("<I").pack


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return U32(kind) + U64(count) + body


BROKEN = {
    "empty": b"",
    "only magic": b"GGUF",
    "other magic": raw(magic=b"GGUX"),
    "version 0": raw(version=0),
    "version 1": raw(version=1),
    "version 4": raw(version=4),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + bytes(64),
    "tensors 2^63": raw(infos=HUGE),
    "pairs 2^63": raw(pairs=HUGE),
    "pairs 2^64-1": raw(pairs=2**64 - 1),
    "more pairs than there are": raw(pairs=3, data=0),
    "key of 2^63 bytes": raw(U64(HUGE), pairs=2),
    "key of the file's length": raw(U64(4000), pairs=2),
    "key that is no text": raw(pair("x", 4, U32(1)).replace(b"x", b"\xff", 1), pairs=2),
    "empty key": raw(pair("", 4, U32(1)), pairs=2),
    "key with a line break": raw(pair("a\nb", 4, U32(1)), pairs=2),
    "duplicate key": raw(pair("a", 4, U32(1)), pair("a", 4, U32(1)), pairs=3),
    "unknown value type": raw(pair("a", 13, U32(1)), pairs=2),
    "text of 2^63 bytes": raw(pair("a", 8, U64(HUGE)), pairs=2),
    "text past the end": raw(pair("a", 8, U64(9000)), pairs=2),
    "truth value of 2": raw(pair("a", 7, b"\x02"), pairs=2),
    "array of unknown type": raw(pair("a", 9, array(77, 1)), pairs=2),
    "array of arrays": raw(pair("a", 9, array(9, 1, array(4, 1, U32(1)))), pairs=2),
    "array of 2^63 bytes": raw(pair("a", 9, array(0, HUGE)), pairs=2),
    "array of 2^61 numbers, whose bytes wrap": raw(pair("a", 9, array(10, 2**61)), pairs=2),
    "array of 2^63 texts": raw(pair("a", 9, array(8, HUGE)), pairs=2),
    "array of texts past the end": raw(pair("a", 9, array(8, 300, text("a"))), pairs=2, data=2000),
    "array of texts, one of them 2^63 long": raw(pair("a", 9, array(8, 2, text("a") + U64(HUGE))), pairs=2),
    "array of truth values of 7": raw(pair("a", 9, array(7, 2, b"\x01\x07")), pairs=2),
    "name of 2^63 bytes": raw(U64(HUGE), infos=1),
    "name that is no text": raw(info(b"\xff\xfe", (32,)), infos=1),
    "name that is too long": raw(info("w" * 600, (32,)), infos=1),
    "name with an escape sequence": raw(info("\x1b[2Jw", (32,)), infos=1),
    "empty name": raw(info("", (32,)), infos=1),
    "duplicate name": raw(info("w", (8,)), info("w", (8,), offset=32), infos=2),
    "no dimensions": raw(info("w", ()), infos=1),
    "five dimensions": raw(info("w", (1, 1, 1, 1, 1)), infos=1),
    "2^31 dimensions": raw(info("w", (32,), rank=2**31), infos=1),
    "dimension of zero": raw(info("w", (0, 4)), infos=1),
    "dimension of 2^63": raw(info("w", (HUGE,)), infos=1),
    "dimensions whose product wraps": raw(info("w", (2**32, 2**32, 2)), infos=1),
    "unknown tensor type": raw(info("w", (32,), kind=99), infos=1),
    "removed tensor type": raw(info("w", (32,), kind=31), infos=1),
    "rows that are no whole blocks": raw(info("w", (33,), kind=2), infos=1),
    "offset past the end": raw(info("w", (32,), offset=2**20), infos=1),
    "offset of 2^63": raw(info("w", (32,), offset=HUGE), infos=1),
    "offset that is not aligned": raw(info("w", (8,), offset=4), infos=1),
    "tensor that ends past the end": raw(info("w", (8192,)), infos=1),
    "tensors that overlap": raw(info("v", (32,)), info("w", (32,), offset=32), infos=2),
    "tensors in one place": raw(info("v", (8,)), info("w", (8,)), infos=2),
    "alignment of zero": raw(pair("general.alignment", 4, U32(0)), pairs=2),
    "alignment of 24": raw(pair("general.alignment", 4, U32(24)), pairs=2),
    "alignment of 2^31": raw(pair("general.alignment", 4, U32(2**31)), pairs=2),
    "alignment that is a text": raw(pair("general.alignment", 8, text("32")), pairs=2),
    "alignment that is true": raw(pair("general.alignment", 7, b"\x01"), pairs=2),
    "ggml": b"lmgg" + bytes(64),
    "ggmf": b"fmgg" + bytes(64),
    "ggjt version 1": b"tjgg" + U32(1) + bytes(64),
    "ggjt of 2^31 words": b"tjgg" + struct.pack("<I7i", 3, 2**31 - 1, 8, 1, 2, 1, 4, 0) + bytes(99),
    "ggjt of -1 words": b"tjgg" + struct.pack("<I7i", 3, -1, 8, 1, 2, 1, 4, 0) + bytes(99),
    "ggjt cut in the vocabulary": b"tjgg" + struct.pack("<I7i", 3, 50, 8, 1, 2, 1, 4, 0) + bytes(99),
    "ggjt token of 2^32 bytes": b"tjgg" + struct.pack("<I7iI", 3, 1, 8, 1, 2, 1, 4, 0, 2**32 - 1) + bytes(99),
    "ggjt behind the tensors": b"tjgg" + struct.pack("<I7iIf", 3, 1, 8, 1, 2, 1, 4, 0, 0, 0.0) + bytes(5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_typed_error_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(BROKEN[name])
    started = time.process_time()
    with PeakMemory() as memory, pytest.raises(CheckpointError) as caught:
        open_gguf(path)
    assert time.process_time() - started < 0.1
    assert memory.growth < 50 * 2**20
    assert str(path) in str(caught.value), "the error names the file"
    assert len(str(caught.value)) < 1000


def test_big_endian_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(BROKEN["big-endian"])
    with pytest.raises(CheckpointError, match="big-endian"):
        open_gguf(path)


WRONG = {
    "architecture missing": {"general.architecture": None},
    "architecture a number": {"general.architecture": 7},
    "architecture a path": {"general.architecture": "../llama"},
    "layers zero": {"llama.block_count": 0},
    "layers a text": {"llama.block_count": "1"},
    "layers missing": {"llama.block_count": None},
    "layers 2^31": {"llama.block_count": 2**31},
    "more layers than tensors": {"llama.block_count": 100_000},
    "heads zero": {"llama.attention.head_count": 0},
    "heads negative": {"llama.attention.head_count": -4},
    "width true": {"llama.embedding_length": True},
    "epsilon a text": {"llama.attention.layer_norm_rms_epsilon": "small"},
    "epsilon nan": {"llama.attention.layer_norm_rms_epsilon": float("nan")},
    "rope base infinite": {"llama.rope.freq_base": float("inf")},
    "scaling a number": {"llama.rope.scaling.type": 3},
    "scaling unknown": {"llama.rope.scaling.type": "warp"},
    "split count a text": {"split.count": "x"},
    "split without files": {"split.count": 3, "split.no": 0},
    "split of 2^31": {"split.count": 2**31 - 1},
    "template a number": {"tokenizer.chat_template": 5},
}


@pytest.mark.parametrize("name", WRONG)
def test_metadata_of_the_wrong_kind_is_a_typed_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_file(path, metadata(**WRONG[name]), tensors())
    with pytest.raises(CheckpointError):
        open_gguf(path)


VOCABULARIES = {
    "scores are bytes": ("tokenizer.ggml.scores", "uint8"),
    "types are bytes": ("tokenizer.ggml.token_type", "int8"),
    "types are floats": ("tokenizer.ggml.token_type", "float32"),
    "scores are short": ("tokenizer.ggml.scores", "short"),
    "types are short": ("tokenizer.ggml.token_type", "short"),
    "scores are not finite": ("tokenizer.ggml.scores", "nan"),
    "scores are missing": ("tokenizer.ggml.scores", "missing"),
    "tokens are missing": ("tokenizer.ggml.tokens", "missing"),
    "tokens are numbers": ("tokenizer.ggml.tokens", "numbers"),
    "kind is unknown": ("tokenizer.ggml.model", "rwkv"),
    "merges are missing": ("tokenizer.ggml.model", "gpt2"),
    "no unknown token": ("tokenizer.ggml.model", "bert"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_wrong_vocabulary_is_a_typed_error(name: str, tmp_path: Path) -> None:
    key, how = VOCABULARIES[name]
    found = metadata()
    if key == "tokenizer.ggml.model":
        found[key] = how
        found.pop("tokenizer.ggml.unknown_token_id")
    elif how == "missing":
        del found[key]
    elif how == "numbers":
        found[key] = np.zeros(WORDS, np.float32)
    elif how == "short":
        found[key] = found[key][:5]
    elif how == "nan":
        found[key][7] = np.nan
    else:
        found[key] = found[key].astype(how)
    write_file(tmp_path / "model.gguf", found, tensors())
    with open_gguf(tmp_path / "model.gguf") as checkpoint, pytest.raises(CheckpointError):
        Tokenizer.from_files(checkpoint.files)


# --- fuzzing ----------------------------------------------------------------------------------------------------------


def mutated(valid: bytes, rng: random.Random) -> bytes:
    """A file that differs from a valid one in a few places, most of them before the tensors' data."""
    content = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(content), 6000)) if rng.random() < 0.8 else rng.randrange(len(content))
        match rng.randrange(7):
            case 0 | 1 | 2 | 3:
                overwrite(content, at, rng)
            case 4:
                del content[at : at + rng.randrange(1, 64)]
            case 5:
                content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 32)))
            case 6:
                content[at:at] = content[at : at + rng.randrange(1, 200)]
    if rng.random() < 0.15:
        del content[rng.randrange(len(content)) :]
    return bytes(content) or b"G"


def digest(path: Path, dialect: Dialect) -> None:
    """Everything that loading asks of a file before the model is built, and every tensor."""
    with open_gguf(path) as checkpoint:
        for ref in checkpoint.tensors.values():
            ref.read()
        dialect.weight_map(dialect.config(checkpoint))
        Tokenizer.from_files(checkpoint.files)


def fuzz(folder: Path, cases: int) -> None:
    valid = write_sample(folder / "valid.gguf")
    rng = random.Random(20)
    dialect = dialect_of(installed().catalogs.architectures.get("LlamaForCausalLM"), "gguf:llama")
    digest(valid, dialect)
    contents = (mutated(valid.read_bytes(), rng) for _ in range(cases))
    refused = sum(feed(folder / "mutated.gguf", contents, partial(digest, dialect=dialect)))
    assert cases * 0.3 < refused < cases, "most mutations break the file, some do not"


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    fuzz(tmp_path, 2000)


@pytest.mark.full
def test_mutated_files_are_refused_or_read_at_length(tmp_path: Path) -> None:
    fuzz(tmp_path, 100_000)


def test_only_the_first_bytes_say_what_a_file_is(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "model.bin")
    assert recognizes(path)
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    assert not recognizes(tmp_path / "model.gguf")
    assert not recognizes(tmp_path / "none.gguf")
