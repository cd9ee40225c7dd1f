# SPDX-License-Identifier: Apache-2.0
"""Opening files: zero copy, split models, older containers, settings as configuration, and models that run."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_samples import SHARED, WIDTH, metadata, tensor, tensors, write_sample

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import dialect_of
from tramontane.errors import CheckpointError
from tramontane.load import LoadOptions, load_model
from tramontane.memory import PeakMemory
from tramontane.plugins import installed
from tramontane.schemes import Ggml
from tramontane.testing.harness import Harness
from tramontane_quant_gguf.codecs import CODECS, PLAIN
from tramontane_quant_gguf.loader import open_gguf
from tramontane_quant_gguf.quantizers import QUANTIZERS, quantize
from tramontane_quant_gguf.writing import OutTensor, write_file

TINY = SHARED / "models" / "llama-2-tiny-random.gguf"


def opened(tmp_path: Path, **changes: Any) -> Checkpoint:
    write_file(tmp_path / "model.gguf", metadata(**changes), tensors())
    return open_gguf(tmp_path / "model.gguf")


# --- containers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*QUANTIZERS, "f64", "i8", "i16", "i32", "i64"])
def test_every_type_that_can_be_written_comes_back(tmp_path: Path, kind: str) -> None:
    codec = CODECS[kind]
    values = torch.randn(3, 512, generator=torch.Generator().manual_seed(1)) * 9
    packed = quantize(values, kind) if kind in QUANTIZERS else values.to(PLAIN[kind]).view(torch.uint8)
    write_file(tmp_path / "m.gguf", metadata(), [*tensors(), OutTensor("x", codec, (3, 512), lambda: packed)])
    ref = open_gguf(tmp_path / "m.gguf").tensors["x"]
    read = ref.read()
    assert torch.equal(read.view(torch.uint8).flatten(), packed.flatten())
    if kind in PLAIN:
        assert (ref.dtype, ref.shape, ref.encoding) == (PLAIN[kind], (3, 512), "")
    else:
        assert (ref.dtype, ref.encoding) == (torch.uint8, kind)
        assert ref.shape == (3, 512 // codec.block * codec.nbytes)
        assert Ggml(codec).dequantize({"weight": read}, (3, 512)).shape == (3, 512)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_tensors_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    rows = 4096
    big = OutTensor("x", CODECS["q8_0"], (rows, 8192), lambda: torch.ones(rows, 8192 // 32 * 34, dtype=torch.uint8))
    write_file(tmp_path / "m.gguf", metadata(), [*tensors(), big])
    with PeakMemory() as memory, open_gguf(tmp_path / "m.gguf") as checkpoint:
        ref = checkpoint.tensors["x"]
        assert int(ref.read().max()) == 1
        index = (slice(5, 7), slice(0, 34))
        assert ref.read(index).untyped_storage().data_ptr() == ref.read().untyped_storage().data_ptr()
    assert memory.growth < 8 * 2**20


def test_both_versions_are_read(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "model.gguf")
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 2)
    (tmp_path / "older.gguf").write_bytes(content)
    first, second = open_gguf(path), open_gguf(tmp_path / "older.gguf")
    assert first.config == second.config
    assert all(torch.equal(ref.read(), second.tensors[name].read()) for name, ref in first.tensors.items())


def test_another_alignment_is_honoured(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(256)
    values = {name: np.arange(number + 3, dtype=np.float32) for number, name in enumerate("abc")}
    for name, array in values.items():
        writer.add_tensor(name, array)
    writer.add_block_count(1)
    writer.add_embedding_length(4)
    writer.add_head_count(1)
    finish(writer)
    found = open_gguf(tmp_path / "m.gguf").tensors
    assert {name: found[name].read().tolist() for name in values} == {n: v.tolist() for n, v in values.items()}


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_split(folder: Path, count: int = 3, **spoiled: dict[str, Any]) -> list[Path]:
    """The sample in several files, its metadata in the first; ``spoiled`` changes the metadata of file ``fN``."""
    every, paths = tensors(), []
    for number in range(count):
        own = {"general.architecture": "llama"} if number else metadata()
        own |= {"split.no": number, "split.count": count, "split.tensors.count": len(every)}
        path = folder / f"model-{number + 1:05}-of-{count:05}.gguf"
        write_file(path, own | spoiled.get(f"f{number}", {}), every[number::count])
        paths.append(path)
    return paths


@pytest.mark.parametrize("asked", [0, 2])
def test_a_split_model_is_one_checkpoint_whichever_file_is_named(tmp_path: Path, asked: int) -> None:
    whole = open_gguf(write_sample(tmp_path / "whole.gguf"))
    parts = open_gguf(write_split(tmp_path)[asked])
    assert parts.config == whole.config
    assert set(parts.tensors) == set(whole.tensors)
    assert all(torch.equal(ref.read(), parts.tensors[name].read()) for name, ref in whole.tensors.items())
    assert parts.files.json("tokenizer.json") == whole.files.json("tokenizer.json")


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"f1": {"split.no": 2}}, "file 2 of 3"),
        ({"f2": {"split.count": 4}}, "file 2 of 4"),
        ({"f0": {"split.tensors.count": 12}}, "hold 11 tensors, but should hold 12"),
    ],
)
def test_files_of_different_models_are_refused(tmp_path: Path, spoiled: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_gguf(write_split(tmp_path, **spoiled)[0])


def test_missing_and_renamed_files_of_a_split_model_are_named(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    paths[1].rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"lacks 1 of 3 files: model-00002-of-00003\.gguf"):
        open_gguf(paths[0])
    shutil.copy(paths[0], tmp_path / "mine.gguf")
    with pytest.raises(CheckpointError, match=r"one of 3 files, but is not called"):
        open_gguf(tmp_path / "mine.gguf")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    paths = write_split(tmp_path, 2)
    own = {"general.architecture": "llama", "split.no": 1, "split.count": 2}
    write_file(paths[1], own, tensors()[:1])
    with pytest.raises(CheckpointError, match=r"is stored in another file too|should hold"):
        open_gguf(paths[0])


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_become_the_configuration(tmp_path: Path) -> None:
    config = opened(tmp_path, **{"llama.attention.key_length": 16, "llama.attention.sliding_window": 0}).config
    assert config == {
        "num_hidden_layers": 1,
        "hidden_size": WIDTH,
        "max_position_embeddings": 128,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
        "vocab_size": 288,
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scaling.type": "linear", "scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, None),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 32},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
        (
            {"scaling.type": "yarn", "scaling.factor": 2.0, "scaling.yarn_beta_fast": 16.0},
            {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128, "beta_fast": 16.0},
        ),
    ],
)
def test_stretched_positions(tmp_path: Path, settings: dict[str, Any], expected: dict[str, Any] | None) -> None:
    found = opened(tmp_path, **{f"llama.rope.{key}": value for key, value in settings.items()})
    assert found.config.get("rope_scaling") == expected


def test_stretches_stored_as_tensors(tmp_path: Path) -> None:
    factors = torch.tensor([1.0, 1.0, 2.5, 8.0])

    def rope(name: str, values: torch.Tensor) -> OutTensor:
        return OutTensor(name, CODECS["f32"], (4,), lambda: values.view(torch.uint8))

    write_file(tmp_path / "a.gguf", metadata(), [*tensors(), rope("rope_freqs.weight", factors)])
    scaling = open_gguf(tmp_path / "a.gguf").config["rope_scaling"]
    assert scaling["rope_type"] == "longrope"
    assert scaling["short_factor"] == scaling["long_factor"] == factors.tolist()
    assert scaling["attention_factor"] == 1.0
    pair = [rope("rope_factors_long.weight", factors), rope("rope_factors_short.weight", factors / 2)]
    settings = {"llama.rope.scaling.attn_factor": 1.25, "llama.rope.scaling.original_context_length": 64}
    write_file(tmp_path / "b.gguf", metadata(**settings), [*tensors(), *pair])
    assert open_gguf(tmp_path / "b.gguf").config["rope_scaling"] == {
        "rope_type": "longrope",
        "long_factor": factors.tolist(),
        "short_factor": (factors / 2).tolist(),
        "attention_factor": 1.25,
        "original_max_position_embeddings": 64,
    }


def test_part_of_a_head_may_be_turned(tmp_path: Path) -> None:
    assert opened(tmp_path, **{"llama.rope.dimension_count": 4}).config["partial_rotary_factor"] == 0.5
    assert "partial_rotary_factor" not in opened(tmp_path, **{"llama.rope.dimension_count": 8}).config


def test_a_stored_head_is_not_tied(tmp_path: Path) -> None:
    write_file(tmp_path / "m.gguf", metadata(), [*tensors(), tensor("output.weight", (288, WIDTH))])
    assert open_gguf(tmp_path / "m.gguf").config["tie_word_embeddings"] is False


def test_experts_are_another_dialect(tmp_path: Path) -> None:
    assert opened(tmp_path).dialect == "gguf:llama"
    mixed = opened(tmp_path, **{"llama.expert_count": 8, "llama.expert_used_count": 2})
    assert mixed.dialect == "gguf:llama+experts"
    architectures = installed().catalogs.architectures
    assert dialect_of(architectures.get("gguf:llama+experts"), mixed.dialect).architecture == "MixtralForCausalLM"


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_a_file_is_a_model(tmp_path: Path, kind: str) -> None:
    exact = Harness.load(write_sample(tmp_path / "exact.gguf", "f32"), dtype="float32", max_model_len=32)
    engine = Harness.load(write_sample(tmp_path / "model.gguf", kind), dtype="float32", max_model_len=32)
    ids = [3, 70, 261, 265, 17, 280]
    difference = np.abs(engine.logits(ids) - exact.logits(ids)).max() / np.abs(exact.logits(ids)).max()
    assert difference <= {"f32": 0, "f16": 2e-3, "q8_0": 0.03, "q4_0": 0.4}[kind]
    (answer,) = engine.greedy([ids], 5)
    assert len(answer) == 5


def test_rows_of_another_length_are_refused_with_the_numbers(tmp_path: Path) -> None:
    wrong = [one for one in tensors() if one.name != "blk.0.attn_q.weight"]
    write_file(tmp_path / "m.gguf", metadata(), [*wrong, tensor("blk.0.attn_q.weight", (32, 64), "q8_0")])
    with pytest.raises(CheckpointError, match="rows of 64 elements in q8_0"):
        Harness.load(tmp_path / "m.gguf")


@pytest.mark.skipif(not TINY.is_file(), reason="needs ../shared/data/models/llama-2-tiny-random.gguf")
def test_a_file_of_other_people_loads_and_generates() -> None:
    engine = Harness.load(TINY, max_model_len=64)
    assert engine.loaded.architecture.name == "llama"
    tokenizer = engine.loaded.text.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode("Once upon a time")
    assert ids == [1, 9038, 2501, 263, 931]
    (answer,) = engine.greedy([ids], 8)
    assert len(tokenizer.decode(answer)) > 0
    assert np.isfinite(engine.logits(ids)).all()


def test_a_file_by_the_gguf_package_gives_the_logits_of_its_source(tmp_path: Path) -> None:
    from tramontane.testing.oracle import Oracle

    config = installed().catalogs.architectures.get("qwen3").load("samples")()["grouped_tied"]
    oracle = Oracle.make(config)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, values in oracle.model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), values.numpy())
    finish(writer)
    published = Harness.load(oracle.save(tmp_path / "hf"), dtype="float32", max_model_len=48)
    ids = [int(token) for token in np.random.default_rng(0).integers(3, config["vocab_size"], 40)]
    engine = Harness.load(tmp_path / "m.gguf", dtype="float32", max_model_len=48)
    assert np.array_equal(engine.logits(ids), published.logits(ids))


# --- ggjt -----------------------------------------------------------------------------------------------------------

META = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "attn_norm": "attention_norm",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
}


def write_ggjt(path: Path) -> Path:
    """The sample, with a head of its own, in the older container."""
    texts = [token.replace("\u2581", " ").encode() for token in metadata()["tokenizer.ggml.tokens"][259:]]
    pieces = [b"", b"", b"", *(bytes([byte]) for byte in range(256)), *texts]
    scores = metadata()["tokenizer.ggml.scores"]
    content = b"tjgg" + struct.pack("<I7i", 3, len(pieces), WIDTH, 32, 4, 1, WIDTH // 4, 7)
    for piece, score in zip(pieces, scores, strict=True):
        content += struct.pack("<I", len(piece)) + piece + struct.pack("<f", score)
    for one in [*tensors("q8_0"), tensor("output.weight", (288, WIDTH), "q8_0", 7)]:
        parts = one.name.removesuffix(".weight").split(".")
        name = META.get(parts[-1], parts[-1]) + ".weight"
        name = (f"layers.{parts[1]}.{name}" if parts[0] == "blk" else name).encode()
        content += struct.pack(f"<3I{len(one.shape)}I", len(one.shape), len(name), one.type.id, *one.shape[::-1]) + name
        content += bytes(-len(content) % 32) + one.make().numpy().tobytes()
    path.write_bytes(content)
    return path


def test_the_container_before_gguf_gives_the_same_model(tmp_path: Path) -> None:
    old = open_gguf(write_ggjt(tmp_path / "old.bin"))
    assert old.dialect == "ggjt:llama"
    head = tensor("output.weight", (288, WIDTH), "q8_0", 7)
    settings = {"llama.attention.layer_norm_rms_epsilon": 5e-6, "llama.context_length": 2048}
    write_file(tmp_path / "new.gguf", metadata(**settings), [*tensors("q8_0"), head])
    new = open_gguf(tmp_path / "new.gguf")
    assert {k: v for k, v in old.config.items() if k != "rope_theta"} == {
        k: v for k, v in new.config.items() if k != "rope_theta"
    }
    ids = [3, 70, 261, 265, 17, 280]
    first, second = (Harness.load(tmp_path / name, max_model_len=32) for name in ("old.bin", "new.gguf"))
    assert np.array_equal(first.logits(ids), second.logits(ids))
    assert first.loaded.text.tokenizer is not None
    assert second.loaded.text.tokenizer is not None
    for text in ("ab abc", "a b\n", "é"):
        assert first.loaded.text.tokenizer.encode(text) == second.loaded.text.tokenizer.encode(text)


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [("q8_0", "auto", torch.float16), ("f32", "auto", torch.float32), ("q8_0", "float32", torch.float32)],
)
def test_a_cache_is_no_wider_than_the_weights(tmp_path: Path, kind: str, asked: str, expected: torch.dtype) -> None:
    path = write_sample(tmp_path / "model.gguf", kind)
    loaded = load_model(str(path), LoadOptions(backend="torch", kv_dtype=asked, max_model_len=64))
    assert {place.spec.dtype for place in loaded.runner.cache_layout.layers.values()} == {expected}
    loaded.close()
