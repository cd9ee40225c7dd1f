# SPDX-License-Identifier: Apache-2.0
"""Importance files in both forms: read, written, named for every architecture, collected as the original does."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.errors import CheckpointError, ConfigError, TramontaneError
from tramontane.load import LoadOptions, load_model
from tramontane.load.calibrate import collect
from tramontane.load.importances import read_importances, write_importances
from tramontane.plugins import installed
from tramontane.quantization import ImportanceFile, Statistics, Sums, importances_of
from tramontane.testing.checkpoints import write_random
from tramontane.testing.grids import mostly_full
from tramontane.testing.harness import SMALL, Harness
from tramontane_quant_gguf.importances import read, recognizes, write

SPOKEN = [
    spec.name
    for spec in installed().catalogs.architectures
    if any(key.partition(":")[0] == "gguf" for key in spec.dialects)
]
PARTS = [[int(token) for token in np.random.default_rng(seed).integers(3, 60, 48)] for seed in range(3)]


def loaded(path: Path, **changes: Any) -> Any:
    options = LoadOptions(backend="torch", dtype="float32", max_model_len=64, capture=False, engine=SMALL, **changes)
    return load_model(str(path), options)


def sample(name: str) -> dict[str, Any]:
    found: Mapping[str, dict[str, Any]] = installed().catalogs.architectures.get(name).load("samples")()
    return next(iter(found.values()))


def older(entries: Mapping[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    """The older form, written out."""
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, values) in entries.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", calls, len(values))]
        parts.append(struct.pack(f"<{len(values)}f", *values))
    return b"".join(parts) + tail


def test_the_older_form_holds_means_times_calls(tmp_path: Path) -> None:
    file = tmp_path / "imatrix.dat"
    tail = struct.pack("<ii", 7, 8) + b"wiki.txt"
    file.write_bytes(older({"blk.0.attn_q.weight": (4, [4.0, 8.0, 0.0]), "blk.0.attn_k.weight": (0, [2.0])}, tail))
    assert recognizes(file)
    found = read(file)
    assert (found.chunks, found.texts) == (7, ("wiki.txt",))
    assert found.entries["blk.0.attn_q.weight"].means().tolist() == [[1.0, 2.0, 0.0]]
    assert found.entries["blk.0.attn_k.weight"].means().tolist() == [[2.0]], "as llama.cpp reads what was never called"
    file.write_bytes(older({"blk.0.attn_q.weight": (4, [4.0])}))
    assert read(file).texts == ()


@pytest.mark.parametrize("name", ["imatrix.gguf", "imatrix.dat"])
def test_what_is_written_reads_back(name: str, tmp_path: Path) -> None:
    squares, counts = torch.rand(3, 8) * 50, torch.tensor([512.0, 0.0, 30.0])
    entries = {"blk.0.ffn_up_exps.weight": Sums(squares, counts), "blk.0.attn_q.weight": Sums(squares[:1], counts[:1])}
    write(tmp_path / name, ImportanceFile(entries=entries, chunks=2, chunk_tokens=256, texts=("a.txt",)))
    found = read(tmp_path / name)
    assert (found.chunks, found.texts) == (2, ("a.txt",))
    for key, sums in entries.items():
        torch.testing.assert_close(found.entries[key].means().flatten(), sums.means().flatten())
    assert entries["blk.0.ffn_up_exps.weight"].means()[1].eq(1).all(), "what nothing went to is even"


def test_the_gguf_package_finds_what_llama_cpp_looks_for(tmp_path: Path) -> None:
    sums = Sums(torch.arange(6.0).reshape(2, 3), torch.tensor([4.0, 5.0]))
    write(tmp_path / "i.gguf", ImportanceFile(entries={"w": sums}, chunks=3, chunk_tokens=512, texts=("t",)))
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.type"] == "imatrix"
    assert (fields["imatrix.chunk_count"], fields["imatrix.chunk_size"]) == (3, 512)
    assert fields["imatrix.datasets"] == ["t"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors["w.in_sum2"].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["w.counts"].data.tolist() == [[4], [5]]


def test_sums_are_those_of_the_original_implementation(tmp_path: Path) -> None:
    config = sample("llama")
    path = write_random(tmp_path, config)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    expected: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def add(_: Any, inputs: tuple[Tensor, ...]) -> None:
            squares = inputs[0].detach().double().flatten(0, -2).square().sum(0)
            expected[name] = expected.get(name, torch.zeros_like(squares)) + squares

        return add

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(name))
    with torch.no_grad():
        for part in PARTS:
            model(torch.tensor([part]))
    found = collect(loaded(path), PARTS)
    assert set(found) == set(expected)
    for name, sums in found.items():
        torch.testing.assert_close(sums.squares_XI[0], expected[name], rtol=1e-4, atol=1e-6)
        assert sums.counts_X.tolist() == [sum(map(len, PARTS))]


def test_every_expert_has_sums_of_its_own(tmp_path: Path) -> None:
    config = sample("mixtral")
    found = collect(loaded(write_random(tmp_path, config)), PARTS)
    experts = {path: sums for path, sums in found.items() if ".experts." in path}
    assert len(experts) == 3 * config["num_hidden_layers"]
    for sums in experts.values():
        assert len(sums.counts_X) == config["num_local_experts"]
        assert sums.counts_X.sum() == config["num_experts_per_tok"] * sum(map(len, PARTS))
        assert ((sums.squares_XI.sum(1) > 0) == (sums.counts_X > 0)).all()
    assert not [path for path in found if path.endswith(".gate")], "routers are never quantized"
    up, down = (experts[f"model.layers.0.block_sparse_moe.experts.{name}_proj"] for name in ("up", "down"))
    assert torch.equal(up.counts_X, down.counts_X)


@pytest.mark.parametrize("name", mostly_full(SPOKEN, ("deepseek2", "gemma2", "llama", "mixtral", "phi3")))
@pytest.mark.parametrize("form", ["gguf", pytest.param("dat", marks=pytest.mark.full)])
def test_every_architecture_names_and_finds_its_matrices(form: str, name: str, tmp_path: Path) -> None:
    model = loaded(write_random(tmp_path / "model", sample(name)))
    statistics = made_up(model)
    file, plugins = tmp_path / f"imatrix.{form}", installed()
    write_importances(file, statistics, model, model.checkpoint.config, plugins, chunks=1, chunk_tokens=1, text="t.txt")
    found = read_importances(file, model, model.checkpoint.config, plugins)
    expected = importances_of(statistics)
    assert set(found) == set(expected)
    for path, importance in expected.items():
        torch.testing.assert_close(found[path], importance)


def made_up(model: Any) -> Statistics:
    """Sums for every matrix; parts of one matrix share them, and so do matrices that a file may hold as one."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Sums] = {}
    shared: dict[tuple[int, int], Sums] = {}
    for matrix in model.blueprint.matrices.values():
        if not matrix.uses & {"linear", "experts"}:
            continue
        size = (matrix.experts or 1, matrix.in_features)
        if size not in shared:
            shared[size] = Sums(torch.rand(*size, generator=generator) + 0.5, torch.full((size[0],), 3.0))
        found |= {part.path: shared[size] for part in matrix.parts}
    return found


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_importances_of_another_model_are_refused(tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", sample("llama"))
    file = tmp_path / "i.dat"
    file.write_bytes(older({"blk.0.attn_q.weight": (1, [1.0] * 7)}))
    with pytest.raises(CheckpointError, match=r"attn_q.*7 inputs of 1 matrices, the model has 1 x 64"):
        loaded(path, quant="q4_0", imatrix=str(file))
    file.write_bytes(older({"encoder.0.q": (1, [1.0] * 64)}))
    with pytest.raises(CheckpointError, match=r"nothing for the matrices of this model \(it has encoder\.0\.q"):
        loaded(path, quant="q4_0", imatrix=str(file))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"imatrix": "a", "calibrate": "b", "quant": "q4_0"}, "not from both"),
        ({"imatrix": "a"}, "count only where weights are quantized"),
        ({"imatrix": "nowhere.dat", "quant": "q4_0"}, "no file nowhere.dat"),
        ({"calibrate": "nowhere.txt", "quant": "q4_0"}, "cannot read the text nowhere.txt"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(write_random(tmp_path, sample("llama")), **options)


def test_a_model_is_no_file_of_importances(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w.in_sum2", np.ones((1, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="not 'imatrix'"):
        read(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (struct.pack("<i", 0), "0; 1 to"),
        (struct.pack("<i", -1), "-1; 1 to"),
        (struct.pack("<ii", 1, 2**30), "1073741824; 1 to 512"),
        (struct.pack("<ii", 1, 5) + b"abc", "needs 5 bytes"),
        (older({"w": (1, [1.0])})[:-2], "needs 4 bytes"),
        (older({"w": (1, [float("nan")])}), "below zero or no number"),
        (older({"w": (1, [-1.0])}), "below zero or no number"),
    ],
)
def test_damaged_files_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "i.dat"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read(file)


VALID = older(
    {"blk.0.attn_q.weight": (2, [1.0, 2.0, 3.0]), "blk.1.ffn_up.weight": (2, [0.5])}, struct.pack("<ii", 1, 0)
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "mutated.dat"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))] or b"\0")
    start = time.perf_counter()
    with suppress(TramontaneError):
        read(file)
    assert time.perf_counter() - start < 1


def test_quantizing_weighs_by_them(tmp_path: Path) -> None:
    """Errors move away from the input that counts."""
    path = write_random(tmp_path / "model", sample("llama"))
    model = loaded(path)
    statistics = made_up(model)
    for sums in statistics.values():
        sums.squares_XI[:, 5] = 1e4
    write_importances(
        tmp_path / "i.gguf", statistics, model, model.checkpoint.config, installed(), chunks=1, chunk_tokens=1, text="t"
    )
    exact = model.blueprint.matrices["model.layers.0.mlp.gate_up_proj"].dequantize()

    def error(**options: Any) -> float:
        made = Harness.load(path, backend="torch", dtype="float32", quant="q4_0", **options)
        matrix = made.loaded.blueprint.matrices["model.layers.0.mlp.gate_up_proj"]
        return float((matrix.dequantize() - exact)[:, 5].square().sum())

    assert error(imatrix=str(tmp_path / "i.gguf")) < 0.5 * error()
