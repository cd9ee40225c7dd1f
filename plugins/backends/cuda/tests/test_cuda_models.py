# SPDX-License-Identifier: Apache-2.0
"""A small decoder by Triton's interpreter: eager, captured on a tape with this backend's rules, and by stock torch."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import HERE, close, matrix, param

from tramontane.backends.torch import TorchBackend
from tramontane.batch import Ctx
from tramontane.ops import BoundOp, Linear, RmsNorm, Runtime
from tramontane.plugins import installed
from tramontane.schemes import Affine, Dense, Ggml, Scheme
from tramontane.tape.capture import capture
from tramontane.tape.ir import Kind, OpNode, Size, Tape, TorchNode, Value
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.tiny import BLOCK, make_batch, make_tiny
from tramontane_backend_cuda import tasks
from tramontane_backend_cuda.backend import CudaBackend
from tramontane_backend_cuda.fused import fuse_norm


@pytest.fixture(autouse=True)
def a_small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer programs than a card could run, of which each costs the interpreter milliseconds."""
    monkeypatch.setattr(tasks, "PROGRAMS", 4)


def scheme_of(path: str) -> Scheme:
    """Different ones for attention and feed-forward; the embedding, which is the head too, is dense."""
    if ".attn." in path:
        return Ggml("q8_0")
    return Affine(bits=4, group=32, zero="int") if ".mlp." in path else Dense(torch.float32)


def on_device(tokens: int, outputs: int, rows: int) -> Ctx:
    """A batch as a device has it: nothing of it is known on the host."""
    ctx = make_batch(tokens, outputs, rows)
    ctx.host = None
    return ctx


def test_a_captured_model_gives_what_it_gives_eagerly() -> None:
    backend = CudaBackend()
    tiny, stock = make_tiny(backend, scheme_of=scheme_of), make_tiny(TorchBackend(HERE), scheme_of=scheme_of)
    runtime = tiny.blueprint.ops[0].runtime
    candidates = backend.candidates
    with torch.inference_mode():
        tape, program = capture(
            tiny.body, runtime, backend, [BLOCK], max_tokens=16, max_outputs=4, candidates=candidates
        )
        for tokens, outputs, rows in ((5, 3, 2), (9, 2, 2)):
            eager = tiny.body(on_device(tokens, outputs, rows))
            close(eager, stock.body(make_batch(tokens, outputs, rows)), 2e-4)
            (captured,) = program.run(on_device(tokens, outputs, rows))
            close(captured, eager, 2e-5)
    names = [node.call.op.name for node in tape.nodes if isinstance(node, OpNode)]
    assert all(node.call.choice.kernel.startswith("cuda.") for node in tape.nodes
               if isinstance(node, OpNode) and node.call.op.name not in ("rope_angles", "take_rows"))  # fmt: skip
    assert names.count("attend_map") == 1
    assert names.count("attend_mapped") == 2
    layer = ["norm_linear", "rotate_write", "attend_mapped", "linear_add", "norm_linear", "linear_add"]
    assert [name for name in names if name not in ("rope_angles", "attend_map", "embed")][: len(layer)] == layer


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    tiny = make_tiny(CudaBackend(), scheme_of=scheme_of)
    with torch.inference_mode():
        together = tiny.body(on_device(6, 6, 2))
        alone = on_device(6, 6, 2)
        alone.ids_T[3:] = 11  # another neighbour
        close(tiny.body(alone)[:3], together[:3], 2e-5)


def test_torch_code_between_a_norm_and_a_product_keeps_them_apart() -> None:
    backend = CudaBackend()
    norm = BoundOp(RmsNorm(1e-5), (param(torch.ones(8)),), Runtime(backend.device))
    linear = BoundOp(Linear(16), (matrix([Dense(torch.float32)], [16], 8, torch.float32),), norm.runtime)
    values = [Value(Kind.ARENA, (Size(tokens=1), size), torch.float32) for size in (8, 8, 16)]
    writes = TorchNode(torch.ops.aten.add_.Scalar, (), {}, (0,), (0,), is_view=False)
    fuse = lambda op, weights, like: BoundOp(op, tuple(weights), like.runtime)  # noqa: E731
    for between, kept in (([], 1), ([writes], 3)):
        tape = Tape(values, [OpNode(norm, (0,), (1,)), *between, OpNode(linear, (1,), (2,))], (2,))
        assert fuse_norm(tape, fuse) is not bool(between)
        assert len(tape.nodes) == kept


@pytest.mark.full
def test_a_model_with_recurrent_layers_gives_what_stock_torch_gives(tmp_path: Path) -> None:
    """Convolution, delta rule in chunks and in steps, gated attention and experts, loaded from files, prompts beside
    decoding rows."""
    spec = installed().catalogs.architectures.get("qwen3next")
    path = write_random(tmp_path / "model", next(iter(spec.load("samples")().values())))
    ours, stock = (
        Harness.load(path, backend=name, max_num_seqs=2, max_batched_tokens=20) for name in ("cuda", "torch")
    )
    kernels = {call.op.name: call.choice.kernel for call in ours.loaded.blueprint.ops if call.choice is not None}
    assert {kernels["causal_conv"], kernels["gated_delta"]} == {"cuda.causal_conv", "cuda.gated_delta"}
    prompts = [[3, 4, 5, 6] * 7, [9]]
    assert ours.greedy(prompts, 2) == stock.greedy(prompts, 2)
