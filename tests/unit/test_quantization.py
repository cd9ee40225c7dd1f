# SPDX-License-Identifier: Apache-2.0
"""Quantizing while loading: types by name and number, rules for shapes and sensitive weights, topologies, memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file

from tramontane.build.plan import ModelPlan
from tramontane.errors import ConfigError, PlanError, TramontaneError, UnknownNameError
from tramontane.load import LoadOptions
from tramontane.load.places import placed
from tramontane.load.planned import planned
from tramontane.plugins import installed
from tramontane.quantization import Quantizer, by_rows, read_topology
from tramontane.quantization.plain import TYPES
from tramontane.schemes import Affine, Dense
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")
pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")

WIDE = sample("LlamaForCausalLM", "llama", hidden_size=256, head_dim=64, intermediate_size=512, num_hidden_layers=2)
NARROW = sample("LlamaForCausalLM", "llama", num_hidden_layers=2)
EXACT = 1e-6
"""What rounding of float32 alone may change."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("wide"), WIDE)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("narrow"), NARROW)


def load(path: Path, **options: Any) -> Harness:
    return Harness.load(path, backend="torch", dtype="float32", **options)


def plan_of(path: Path, **options: Any) -> ModelPlan:
    """What loading would make of a model, without packing anything."""
    with planned(str(path), LoadOptions(backend="torch", dtype="float32", **options), installed()) as one:
        return one.plan


def names(plan: ModelPlan) -> dict[str, str]:
    """Scheme of every part by its path, without the layers' prefix."""
    return {part.path.removeprefix("model."): part.scheme.name for weight in plan.weights for part in weight.parts}


@pytest.mark.parametrize(
    "kind", ["q2k", "Q3_K", "q4k", "q5k", "q6k", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "IQ4_NL", "iq4xs"]
)
def test_ggml_types_are_quantized_to(wide: Path, kind: str) -> None:
    wanted = kind.lower().replace("_k", "k").replace("k", "_k").replace("iq4x", "iq4_x")
    high = "q6_k" if wanted in ("q2_k", "q3_k", "q4_k", "q4_0", "q4_1", "iq4_nl", "iq4_xs") else "q8_0"
    found = names(plan_of(wide, quant=kind))
    assert {found.pop("embed_tokens"), found.pop("lm_head")} == {high}
    assert set(found.values()) == {wanted}


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_core_types_are_quantized_to(wide: Path, kind: str) -> None:
    harness = load(wide, quant=kind.upper())
    found = names(harness.loaded.plan)
    assert found["layers.0.mlp.down_proj"] == TYPES[kind].scheme.name
    assert found["lm_head"] == TYPES[TYPES[kind].sensitive or kind].scheme.name
    assert torch.isfinite(torch.from_numpy(harness.logits([3, 17, 42]))).all()


def test_a_quantized_model_computes_what_its_dequantized_weights_do(wide: Path) -> None:
    ours, plain = load(wide, quant="q4k"), load(wide)
    for path, matrix in plain.loaded.blueprint.matrices.items():
        replaced = ours.loaded.blueprint.matrices[path].dequantize()
        stored: Any = matrix.storage()
        for piece, part in zip(stored.pieces, replaced.split([p.out_features for p in matrix.parts]), strict=True):
            piece.copy_(part)
    got, expected = ours.logits([3, 17, 42, 8]), plain.logits([3, 17, 42, 8])
    assert abs(got - expected).max() <= 1e-4 * max(1.0, abs(expected).max())


@pytest.mark.parametrize(("number", "kind"), [("2", "q2_k"), ("4", "q4_k"), ("8", "q8_0")])
def test_a_number_means_the_backend_s_type(wide: Path, number: str, kind: str) -> None:
    assert names(plan_of(wide, quant=number))["layers.1.self_attn.q_proj"] == kind


def test_costs_are_those_of_the_schemes(wide: Path) -> None:
    backend = load(wide).loaded.backend
    for number, level in backend.isq_types.items():
        part = plan_of(wide, quant=str(number)).weight("model.layers.0.mlp.down_proj").parts[0]
        assert part.scheme.bits_per_weight(part.shape) == level.bits_per_weight


@pytest.mark.parametrize(
    ("quant", "error", "words"),
    [
        ("q4q", UnknownNameError, "no quantization type 'q4q'; did you mean .*q4k"),
        ("7", PlanError, "no type of 7 bits.*\n.*it has: 2, 3, 4, 5, 6, 8"),
        ("gguf", PlanError, "not stored in the format 'gguf'"),
    ],
)
def test_what_there_is_not_is_said(narrow: Path, quant: str, error: type[TramontaneError], words: str) -> None:
    with pytest.raises(error, match=words):
        plan_of(narrow, quant=quant)


def test_shapes_that_k_types_cannot_store_get_the_fallback(narrow: Path) -> None:
    expected = {"q2k": "q4_0", "q3k": "q4_0", "q4k": "q5_0", "q5k": "q5_1", "q6k": "q8_0", "iq4_xs": "iq4_nl"}
    for kind, fallback in expected.items():
        found = names(plan_of(narrow, quant=kind))
        assert found["layers.0.self_attn.q_proj"] == fallback
        assert found["lm_head"] == "q8_0", "heads become q6k or q8_0, and q6k becomes q8_0"


def test_a_shape_that_nothing_stores_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = sample("LlamaForCausalLM", "llama", num_hidden_layers=1, intermediate_size=72)
    with caplog.at_level(logging.WARNING, "tramontane"):
        found = names(plan_of(write_random(tmp_path, config), quant="q8_0"))
    assert found["layers.0.mlp.down_proj"] == "f32"
    assert found["layers.0.mlp.up_proj"] == "q8_0"
    (said,) = [record.getMessage() for record in caplog.records if "whole blocks" in record.getMessage()]
    assert "1 weights are left in floating point" in said
    assert "64x72 for q8_0" in said


def test_experts_only_and_never_routers(tmp_path: Path) -> None:
    samples = pytest.importorskip("tramontane_arch_mixtral.samples").samples()
    path = write_random(tmp_path, {**next(iter(samples.values())), "intermediate_size": 96})
    every = names(plan_of(path, quant="q8_0"))
    assert {name for name, kind in every.items() if kind == "f32"} == {name for name in every if name.endswith(".gate")}
    only = names(plan_of(path, quant="q8_0", organization="moqe"))
    assert {name for name, kind in only.items() if kind == "q8_0"} == {name for name in only if ".experts." in name}
    with pytest.raises(ConfigError, match="no organization 'half'"):
        plan_of(path, quant="q8_0", organization="half")


TOPOLOGY = """
"0-1": {isq: Q8_0}
"1": {quant: q4_0, device: cpu}
"/o_proj/": {isq: none}
"/1.*o_proj/": {isq: q5_1}
"""


def test_a_topology_decides_per_layer_and_the_later_line_wins(wide: Path, tmp_path: Path) -> None:
    file = tmp_path / "topology.yml"
    file.write_text(TOPOLOGY)
    found = names(plan_of(wide, topology=str(file)))
    assert found["layers.0.mlp.up_proj"] == "q8_0"
    assert found["layers.1.mlp.up_proj"] == "q4_0"
    assert (found["layers.0.self_attn.o_proj"], found["layers.1.self_attn.o_proj"]) == ("f32", "q5_1")
    assert found["embed_tokens"] == "f32"
    assert names(plan_of(wide, topology=str(file), quant="q6k"))["lm_head"] == "q8_0"


def test_a_topology_may_be_toml(tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text('"0-2" = {isq = "q4k", device = "cuda[1]"}\n')
    topology = read_topology(file)
    assert topology.quant("model.layers.1.mlp.up_proj") == "q4k"
    assert topology.device("transformer.h.0.attn") == ("cuda:1", "0-2")
    assert topology.quant("model.layers.2.mlp.up_proj") is None
    assert topology.quant("lm_head") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"3-3": {isq: q4k}', "key '3-3': the range is empty"),
        ('"a-b": {isq: q4k}', "key 'a-b': not a range"),
        ('"/(/": {isq: q4k}', r"key '/\(/': not a regular expression"),
        ('"1": {bits: 4}', "key '1': unknown setting bits"),
        ('"1": {isq: q4k, quant: q4k}', "key '1': isq and quant"),
        ('"1": {device: tpu}', "key '1': there is no device 'tpu'"),
        ('"1": q4k', "key '1': there must be isq or device"),
        ("[1, 2]", "not a table"),
        ("{", "cannot read the topology"),
    ],
)
def test_mistakes_in_a_topology_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "topology.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_topology(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"1-3": {device: "cuda[1]"}\n"2": {device: cpu}\n"/mlp/": {isq: q4k}', "cpu=1,cuda:1=1,cpu=1"),
        ('"0-3": {device: metal}', "mps=3"),
        ('"0-3": {device: cpu}', None),
        ('"0-3": {isq: q4k}', None),
    ],
)
def test_lines_of_a_topology_amount_to_a_device_map(tmp_path: Path, text: str, expected: str | None) -> None:
    file = tmp_path / "topology.yml"
    file.write_text(text)
    options = LoadOptions(topology=str(file), device="cpu")
    assert placed(options, {"num_hidden_layers": 3}, installed()).device_map == expected
    given = evolve(options, device_map="cpu=rest")
    assert placed(given, {"num_hidden_layers": 3}, installed()) == given


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('"1-3": {device: cpu}', ConfigError, "key '1-3': the model has 2 layers"),
        ('"1": {device: "cuda[9]"}', TramontaneError, "cuda"),
        ('"/o_proj/": {device: "cuda[0]"}', PlanError, r"key '/o_proj/': .*o_proj lies on cpu, not on cuda:0"),
    ],
)
def test_what_a_topology_cannot_place_is_said(
    narrow: Path, tmp_path: Path, text: str, error: type[TramontaneError], words: str
) -> None:
    file = tmp_path / "topology.yml"
    file.write_text(text)
    with pytest.raises(error, match=words):
        load(narrow, topology=str(file))


def test_packing_by_rows_is_packing_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tramontane.quantization.quantizer.CHUNK", 300)
    weight = torch.randn(3, 10, 72, generator=torch.Generator().manual_seed(0))
    for kind in TYPES.values():
        fields = kind.pack(weight, None)
        kind.scheme.check(fields, (3, 10, 72), what=kind.name)
        if not kind.name.startswith("hqq"):  # its fit looks at all rows that it is given
            whole = kind.scheme.quantize(weight)
            assert all(torch.equal(fields[name].view(torch.uint8), whole[name].view(torch.uint8)) for name in whole)


def test_half_quadratic_zero_points_beat_rounding_where_there_are_outliers() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    weight[:, ::40] *= 6
    kind = TYPES["hqq4"]
    assert isinstance(kind.scheme, Affine)
    plain = by_rows(kind.scheme)(weight, None)
    errors = [
        (kind.scheme.dequantize(fields, (64, 256)) - weight).abs().mean() for fields in (kind.pack(weight, None), plain)
    ]
    assert errors[0] < 0.98 * errors[1]


def test_types_compare_by_name() -> None:
    assert Quantizer(name="a", scheme=Dense(torch.float32), pack=lambda w, _: {"weight": w}) != TYPES["nf4"]


MEMORY = """
import json, sys
import torch
from tramontane.load import model
from tramontane.memory import PeakMemory
from tramontane.testing.harness import Harness
torch.set_num_threads(1)
Harness.load(sys.argv[2], backend="torch", dtype="bfloat16", quant=sys.argv[3])
fill = model.fill_weights

def watched(*args):
    with PeakMemory() as peak:
        fill(*args)
    print(json.dumps({"growth": peak.growth, "quantized": args[0].nbytes}))

model.fill_weights = watched
Harness.load(sys.argv[1], backend="torch", dtype="bfloat16", quant=sys.argv[3], num_blocks=16)
"""


@pytest.mark.parametrize("kind", [pytest.param("q4k", marks=pytest.mark.full), "afq4"])
def test_peak_memory_is_the_quantized_model_and_one_layer(tmp_path: Path, narrow: Path, kind: str) -> None:
    """RssAnon and Shmem while the weights come in; use is the backend's business."""
    config = sample(
        "LlamaForCausalLM", "llama", hidden_size=512, intermediate_size=1536, num_hidden_layers=6, vocab_size=256
    )
    path = write_random(tmp_path, config)
    floats = sum(tensor.numel() * 2 for tensor in load_file(path / "model.safetensors").values())
    # What malloc keeps of freed pieces differs from run to run by megabytes; mapped pieces go back at once.
    mapped = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY, str(path), str(narrow), kind]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=mapped)
    found = json.loads(ran.stdout)
    assert found["growth"] < found["quantized"] + floats / 6, found
    assert found["quantized"] < 0.4 * floats
