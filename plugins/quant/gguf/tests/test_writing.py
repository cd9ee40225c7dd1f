# SPDX-License-Identifier: Apache-2.0
"""Writing models: every architecture comes back with equal logits, or is refused with the reason; names and keys are
those of the format; vocabularies survive."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from gguf_samples import SHARED, write_sample

from tramontane.checkpoint import Files
from tramontane.errors import CheckpointError, PlanError
from tramontane.export import WriteOptions, export, write_model
from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.grids import mostly_full
from tramontane.testing.harness import Harness
from tramontane.tokenizer import Tokenizer
from tramontane_quant_gguf.loader import open_gguf
from tramontane_quant_gguf.reading import Metadata
from tramontane_quant_gguf.vocabulary import files_of
from tramontane_quant_gguf.writing.container import as_read
from tramontane_quant_gguf.writing.types import fitting, wanted_type
from tramontane_quant_gguf.writing.vocabulary import write_vocabulary

LENGTH = 48
SPOKEN = [
    spec.name
    for spec in installed().catalogs.architectures
    if any(key.partition(":")[0] == "gguf" for key in spec.dialects)
]
USUAL = ("deepseek2", "gemma2", "llama", "phi3", "qwen3moe")
#: What samples must state otherwise for GGUF to have words for them; architecture -> (sample, changes).
SAYABLE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gemma2": ("alternating", {"query_pre_attn_scalar": 16}),
    "gemma3": ("older_spelling", {"query_pre_attn_scalar": 16}),
    "gptoss": ("alternating_yarn", {"swiglu_limit": 7.0}),
    "phimoe": ("published_name_all_experts_tied", {}),
    "smollm3": ("every_third_without_positions_tied", {"no_rope_layer_interval": 4, "num_hidden_layers": 5}),
}


def samples(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = installed().catalogs.architectures.get(name).load("samples")()
    return found


def load(path: Path, **changes: Any) -> Harness:
    options = {"dtype": "float32", "max_model_len": LENGTH, "backend": "torch", "capture": False}
    return Harness.load(path, **{**options, **changes})


def write(engine: Harness, path: Path, **options: Any) -> Path:
    write_model(engine.loaded, path, installed(), form="gguf", options=WriteOptions(**options))
    return path


def refusal(engine: Harness, path: Path) -> str | None:
    """Why the model is not written; ``None`` if it is."""
    try:
        write(engine, path)
    except CheckpointError as error:
        return error.message
    return None


def ids(vocabulary: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(0).integers(3, vocabulary, LENGTH)]


def source(name: str, folder: Path) -> tuple[Harness, dict[str, Any]]:
    """A random model of an architecture that GGUF can describe."""
    sample, changes = SAYABLE.get(name, (next(iter(samples(name))), {}))
    config = {**samples(name)[sample], **changes}
    if name == "mistral":
        config["sliding_window"] = None
    if name.startswith("qwen"):
        config["use_sliding_window"] = False
    return load(write_random(folder / "source", config)), config


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPOKEN)
def test_a_written_model_reads_back_with_equal_logits(name: str, tmp_path: Path) -> None:
    engine, config = source(name, tmp_path)
    back = load(write(engine, tmp_path / "model.gguf"))
    prompt = ids(config["vocab_size"])
    assert np.array_equal(back.logits(prompt), engine.logits(prompt))


@pytest.mark.parametrize("name", mostly_full(SPOKEN, USUAL))
def test_every_sample_reads_back_as_it_was_or_is_refused(name: str, tmp_path: Path) -> None:
    for sample, config in samples(name).items():
        engine = load(write_random(tmp_path / sample, config))
        path = tmp_path / f"{sample}.gguf"
        refused = refusal(engine, path)
        if refused is not None:
            assert re.search(r"(would be|would turn|another number)", refused)
            assert not path.exists()
            continue
        prompt = ids(config["vocab_size"])
        ours, theirs = load(path).logits(prompt), engine.logits(prompt)
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_a_model_that_cannot_be_described_is_written_only_when_asked(tmp_path: Path) -> None:
    config = samples("mistral")["window"]
    engine = load(write_random(tmp_path / "source", config))
    with pytest.raises(CheckpointError, match=r"attend\): window 9 would be None"):
        write(engine, tmp_path / "model.gguf")
    again = load(write(engine, tmp_path / "model.gguf", changed=True), arch="mistral")
    prompt = ids(config["vocab_size"])
    assert np.array_equal(again.logits(prompt), engine.logits(prompt))


@pytest.mark.parametrize("name", mostly_full(SPOKEN, USUAL))
def test_names_and_keys_are_the_formats(name: str, tmp_path: Path) -> None:
    engine, config = source(name, tmp_path)
    reader = gguf.GGUFReader(write(engine, tmp_path / "model.gguf"))
    arch = reader.fields["general.architecture"].contents()
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    known = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[number]}
    layers = range(config["num_hidden_layers"])
    spelled = {pattern.format(bid=layer) for pattern in known for layer in layers}
    for tensor in reader.tensors:
        module, _, field = tensor.name.rpartition(".")
        assert tensor.name in spelled or (module in spelled and field in ("weight", "bias")), tensor.name
    keys = {text.replace("{arch}", arch) for group in vars(gguf.Keys).values() for text in _texts(group)}
    unknown = {key for key in reader.fields if not key.startswith(("GGUF.", "tokenizer.chat_template"))} - keys
    assert unknown <= {f"{arch}.attention.sliding_window_pattern", f"{arch}.rope.freq_base_swa"}, unknown


def _texts(group: Any) -> list[str]:
    """All texts of a class of constants, nested ones included."""
    inner = [item for key, item in vars(group).items() if not key.startswith("_")] if isinstance(group, type) else []
    return [text for item in inner for text in ([item] if isinstance(item, str) else _texts(item))]


@pytest.mark.parametrize(
    ("quant", "limit"), [("q8_0", 0.04), ("q6k", 0.1), ("Q5_K_M", 0.2), ("q4_0", 0.5), ("q4_k", 0.4), ("mxfp4", 0.6)]
)
def test_matrices_are_written_in_the_wanted_type(quant: str, limit: float, tmp_path: Path) -> None:
    config = {**samples("llama")["grouped"], "hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    engine = load(write_random(tmp_path / "source", config))
    path = write(engine, tmp_path / "model.gguf", quant=quant)
    types = {name: ref.encoding or str(ref.dtype) for name, ref in open_gguf(path).tensors.items()}
    assert types["blk.1.ffn_up.weight"] == wanted_type(quant)
    assert types["blk.1.ffn_norm.weight"] == "torch.float32"
    assert types["output.weight"] == types["token_embd.weight"]
    prompt = ids(config["vocab_size"])
    ours, exact = load(path).logits(prompt), engine.logits(prompt)
    error = np.sqrt(np.square(ours - exact).mean() / np.square(exact).mean())
    assert 0 < error < limit


def test_rows_that_fit_no_block_get_the_nearest_type(tmp_path: Path) -> None:
    assert [fitting("q4_k", inputs) for inputs in (512, 96, 40)] == ["q4_k", "q5_0", "f16"]
    config = {**samples("llama")["grouped"], "intermediate_size": 96}
    path = write(load(write_random(tmp_path / "source", config)), tmp_path / "m.gguf", quant="q2_k")
    types = {ref.encoding for ref in open_gguf(path).tensors.values()}
    assert types == {"q4_0", "q8_0", ""}


def test_routers_and_vectors_stay_exact(tmp_path: Path) -> None:
    engine, _ = source("qwen3moe", tmp_path)
    tensors = open_gguf(write(engine, tmp_path / "m.gguf", quant="q8_0")).tensors
    assert tensors["blk.0.ffn_gate_inp.weight"].dtype is torch.float32
    assert tensors["blk.0.attn_q_norm.weight"].dtype is torch.float32
    assert tensors["blk.0.ffn_gate_exps.weight"].encoding == "q8_0"


@pytest.mark.parametrize("kind", ["q4_0", "q6_k", "f16"])
def test_what_is_quantized_is_written_as_it_is(kind: str, tmp_path: Path) -> None:
    if kind == "q6_k":
        config = {**samples("llama")["grouped"], "hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
        first = write(load(write_random(tmp_path / "source", config)), tmp_path / "first.gguf", quant=kind)
    else:
        first = write_sample(tmp_path / "first.gguf", kind)
    second = write(load(first, dtype="float16" if kind == "f16" else "float32"), tmp_path / "second.gguf")
    before, after = open_gguf(first), open_gguf(second)
    assert set(before.tensors) == set(after.tensors)
    for name, ref in before.tensors.items():
        other = after.tensors[name]
        assert (ref.encoding, ref.dtype) == (other.encoding, other.dtype)
        if len(ref.shape) > 1 or kind != "f16":  # vectors are float32 in files, and the type of activations in models
            assert torch.equal(ref.read(), other.read()), name
    assert {**after.config, "head_dim": 0} == {**before.config, "head_dim": 0}
    assert before.files.json("tokenizer.json") == after.files.json("tokenizer.json")


def test_types_that_nothing_packs_are_refused(tmp_path: Path) -> None:
    engine, _ = source("llama", tmp_path)
    with pytest.raises(PlanError, match="'iq2_xxs'"):
        write(engine, tmp_path / "m.gguf", quant="iq2_xxs")
    with pytest.raises(PlanError, match="'q9_9'"):
        write(engine, tmp_path / "m.gguf", quant="q9_9")


def test_a_file_appears_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = source("llama", tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tramontane_quant_gguf.writing.container._write_tensor", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        write(engine, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- vocabularies ---------------------------------------------------------------------------------------------------

TEXTS = ("Once upon a time, there was 1 little girl.", "  ab é 漢字 \n\n 12345 don't", "<s>hi</s> <|im_end|>")
FOLDERS = ("tokenizers/phi3-v", "tokenizers/smollm2", "models/tinystories-656k-hf", "tokenizers/phi-1_5")


@pytest.mark.parametrize("folder", mostly_full(FOLDERS, FOLDERS[:3]))
def test_a_tokenizer_survives(folder: str) -> None:
    path = SHARED / folder
    if not (path / "tokenizer.json").is_file():
        pytest.skip(f"needs ../shared/data/{folder}")
    files = Files.in_directory(path)
    ours = Tokenizer.from_files(files)
    written = write_vocabulary(files, ours.vocab_size + 5)
    assert written["tokenizer.ggml.model"] in ("llama", "gpt2")
    assert len(written["tokenizer.ggml.tokens"]) == ours.vocab_size + 5
    theirs = Tokenizer.from_files(files_of(Metadata({k: as_read(v) for k, v in written.items()}, folder)))
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text), text
        assert theirs.decode(theirs.encode(text)) == ours.decode(ours.encode(text))
    assert theirs.bos_id == ours.bos_id
    assert set(ours.eos_ids[:3]) <= set(theirs.eos_ids)
    assert theirs.special_ids == ours.special_ids | ({0} if "unk_token" in theirs.names else set())


def test_templates_and_special_tokens_survive(tmp_path: Path) -> None:
    engine = load(write_sample(tmp_path / "first.gguf"))
    exported = export(engine.loaded, installed())
    written = write_vocabulary(exported.files, 288)
    assert written["tokenizer.chat_template"] == "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert written["tokenizer.ggml.bos_token_id"] == 1
    assert written["tokenizer.ggml.eos_token_id"] == 2
    assert written["tokenizer.ggml.add_bos_token"] is True
    assert written["tokenizer.ggml.add_eos_token"] is False


def test_scores_that_cannot_tell_merges_apart_take_the_whole_description_along() -> None:
    model = tokenizers.models.BPE(
        {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6},
        [("a", "b"), ("b", "c"), ("a", "bc")],  # "ab" + "c" is no merge, though "abc" is a token
        unk_token="<unk>",
        byte_fallback=True,
    )
    content = tokenizers.Tokenizer(model).to_str().encode()
    written = write_vocabulary(Files({"tokenizer.json": lambda: content}), 7)
    assert json.loads(written["tokenizer.huggingface.json"])["model"]["merges"] == [["a", "b"], ["b", "c"], ["a", "bc"]]


@pytest.mark.parametrize(
    "model",
    [
        tokenizers.models.WordLevel({"a": 0}, unk_token="a"),
        tokenizers.models.Unigram([("a", 0.0)], 0),
        tokenizers.models.BPE({"a": 0}, []),
    ],
    ids=["words", "unigrams", "an unknown cut"],
)
def test_a_vocabulary_without_words_in_the_format_is_left_out(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    content = tokenizer.to_str().encode()
    written = write_vocabulary(Files({"tokenizer.json": lambda: content}), 4)
    assert written == {"tokenizer.ggml.model": "none"}
    assert "vocabulary" in caplog.text
