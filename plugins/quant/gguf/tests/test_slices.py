# SPDX-License-Identifier: Apache-2.0
"""Slices of matrices in files: cut then unpacked is unpacked then cut, bit for bit, for every type that is packed,
for reordered rows, parts of fused matrices and stacks of experts; what cannot be cut is refused with its numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.build.formats import DenseFormat
from tramontane.build.sources import Sources
from tramontane.dialects import dialect_of
from tramontane.errors import PlanError
from tramontane.export import WriteOptions, convert_model
from tramontane.load import LoadOptions
from tramontane.load.foreign import translated
from tramontane.plugins import installed
from tramontane.tensors import AxisRanges
from tramontane.testing.checkpoints import write_random
from tramontane.testing.quantized import check_slice
from tramontane.testing.samples import sample
from tramontane_quant_gguf.codecs import CODECS
from tramontane_quant_gguf.format import BlockFormat
from tramontane_quant_gguf.loader import open_gguf
from tramontane_quant_gguf.quantizers import QUANTIZERS

LLAMA = sample("LlamaForCausalLM", "llama", hidden_size=512, head_dim=64, intermediate_size=256, num_hidden_layers=1)
ATTENTION = "model.layers.0.self_attn"
TYPES = [kind for kind in QUANTIZERS if CODECS[kind].block > 1]


@frozen
class OnFile:
    """The matrices of a file by the model's names."""

    sources: Callable[[], Sources] = field(repr=False)

    def weight(self, path: str, shape: tuple[int, ...], ranges: AxisRanges | None = None) -> Tensor:
        """One matrix, or a slice of it: float32."""
        part = self.sources().part(path, shape, ranges or {})
        assert part is not None
        assert not part.misfits
        return part.scheme.dequantize(part.read(), part.shape)


def opened(path: Path) -> OnFile:
    plugins = installed()
    checkpoint = translated(open_gguf(path), LoadOptions(), plugins)
    spec = plugins.catalogs.architectures.get(checkpoint.architectures[0])
    names = dialect_of(spec, checkpoint.dialect).weight_map(checkpoint.config)
    return OnFile(lambda: Sources.of(checkpoint, names, [BlockFormat(), DenseFormat()], ()))


def converted(folder: Path, config: dict[str, Any], kind: str) -> OnFile:
    words = {f"<{number}>": number for number in range(config["vocab_size"])}
    path = write_random(folder / "model", config)
    (path / "tokenizer.json").write_text(
        '{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": '
        + str(words).replace("'", '"')
        + ', "merges": []}}'
    )
    options = LoadOptions(backend="torch", dtype="float32")
    file = folder / "model.gguf"
    convert_model(str(path), file, options, installed(), form="gguf", write=WriteOptions(quant=kind))
    return opened(file)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnFile]:
    return cache(lambda kind: converted(tmp_path_factory.mktemp(kind), LLAMA, kind))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_cut_then_unpacked_is_unpacked_then_cut(llama: Callable[[str], OnFile], data: st.DataObject) -> None:
    """Rows of q are stored in another order than the model's."""
    kind = data.draw(st.sampled_from(TYPES))
    name, shape = data.draw(
        st.sampled_from(
            [
                (f"{ATTENTION}.q_proj", (LLAMA["num_attention_heads"] * 64, 512)),
                (f"{ATTENTION}.v_proj", (LLAMA["num_key_value_heads"] * 64, 512)),
                ("model.layers.0.mlp.up_proj", (256, 512)),
            ]
        )
    )
    axis = data.draw(st.sampled_from(["out", "in"]))
    size = shape[0 if axis == "out" else 1]
    step = data.draw(st.sampled_from([step for step in (1, 32, 256) if size >= 2 * step]))
    bounds = sorted(data.draw(st.lists(st.integers(0, size // step), min_size=2, max_size=4, unique=True)))
    bounds = bounds[: len(bounds) // 2 * 2]
    ranges = tuple((low * step, high * step) for low, high in zip(bounds[::2], bounds[1::2], strict=True))
    cut = check_slice(llama(kind), name, shape, axis, ranges)
    block = CODECS[kind].block
    whole = all(edge % block == 0 or edge == size for pair in ranges for edge in pair)
    assert cut is (axis == "out" or whole)


@pytest.mark.parametrize(
    ("kind", "cut", "words"), [("q4_k", 300, r"300.*256"), ("q8_0", 40, r"40.*32"), ("q6_k", 32, r"32.*256")]
)
def test_a_cut_inside_a_block_is_refused_with_the_numbers(
    llama: Callable[[str], OnFile], kind: str, cut: int, words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        llama(kind).weight("model.layers.0.mlp.up_proj", (256, 512), {"in": ((0, cut),)})


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_parts_of_fused_matrices(kind: str, tmp_path: Path) -> None:
    spec = installed().catalogs.architectures.get("Phi3ForCausalLM")
    config = {**next(iter(spec.load("samples")().values())), "hidden_size": 64, "num_hidden_layers": 1}
    made = converted(tmp_path, config, kind)
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or 64 // heads
    for name, rows in (("q_proj", heads * width), ("k_proj", groups * width), ("v_proj", groups * width)):
        for axis, ranges in (("out", ((0, rows // 2),)), ("out", ((rows // 4, rows),)), ("in", ((32, 64),))):
            assert check_slice(made, f"{ATTENTION}.{name}", (rows, 64), axis, ranges)
        assert not check_slice(made, f"{ATTENTION}.{name}", (rows, 64), "in", ((0, 16),))


def test_stacks_of_experts(tmp_path: Path) -> None:
    spec = installed().catalogs.architectures.get("MixtralForCausalLM")
    config = {**next(iter(spec.load("samples")().values())), "intermediate_size": 96, "num_hidden_layers": 1}
    made, experts = converted(tmp_path, config, "q8_0"), config["num_local_experts"]
    path = "model.layers.0.block_sparse_moe.experts.up_proj"
    shape = (experts, 96, config["hidden_size"])
    for axis, ranges in (("expert", ((1, 2),)), ("out", ((3, 50),)), ("in", ((32, 64),))):
        assert check_slice(made, path, shape, axis, ranges)
    assert torch.isfinite(made.weight(path, shape)).all()
