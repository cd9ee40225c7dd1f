# SPDX-License-Identifier: Apache-2.0
"""Compiles what the backend launches, for a Hopper card, on a machine that has none; prints what became of it as JSON.

Triton's compiler and NVIDIA's assembler come with Triton; only the driver is missing, so that a launch is stopped after
compilation. What is launched is decided by the backend itself, on tensors of real shapes (and of zeros). Run as a
program, and without ``TRITON_INTERPRET``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from tramontane.batch import Ctx, GroupCtx
from tramontane.cache.planes import make_planes
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import (
    Attend,
    CausalConv,
    Experts,
    GatedActivate,
    GatedDelta,
    RmsNorm,
    Rotate,
    RotateWrite,
    Router,
)
from tramontane.schemes import Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.weights import CacheSlot, Matrix, Param, Part, Source

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
BF16 = torch.bfloat16
COMPILED: dict[str, Any] = {}
INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")
REGISTER = re.compile(r"\bR(\d+)")
Code = Sequence[tuple[str, str]]
"""Instructions: names and operands."""


class NoCard:
    """What Triton asks its driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        """A Hopper card."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return 0


_run = JITFunction.run


def _compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
    kernel = _run(self, *args, grid=grid, warmup=True, **kwargs)
    COMPILED.setdefault(f"{self.__name__} {kernel.hash[:8]}", kernel)
    return kernel


def loops(assembly: str) -> Iterator[Code]:
    """The instructions of each loop, innermost first seen."""
    labels: dict[str, int] = {}
    code: list[tuple[str, str]] = []
    for line in assembly.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label.group(1)] = len(code)
        found = INSTRUCTION.search(line)
        if found:
            code.append((found.group(1), found.group(2)))
    for index, (name, rest) in enumerate(code):
        target = re.search(r"\.L_x_\d+", rest) if name.startswith("BRA") else None
        first = labels.get(target.group(0), index) if target else index
        if index - first > 4:
            yield code[first : index + 1]


def waits(code: Code) -> int:
    """Loads to registers in the code of a loop whose results are read in the same turn, before its last product: what
    a turn waits for."""
    found = 0
    last = max((i for i, (name, _) in enumerate(code) if name.startswith(("HMMA", "HGMMA", "IMMA"))), default=len(code))
    for index, (name, rest) in enumerate(code):
        target = re.match(r"\s*R(\d+)", rest) if name.startswith("LDG.") else None
        if target is None:
            continue
        count = 4 if ".128" in name else 2 if ".64" in name else 1
        made = {int(target.group(1)) + i for i in range(count)}
        for later, operands in code[index + 1 : last]:
            writes = 0 if later.startswith(("ST", "RED", "BRA", "BAR", "LDGSTS", "HGMMA")) else 1
            used = [int(one) for one in REGISTER.findall(",".join(operands.split(",")[writes:]))]
            if made & set(used):
                found += 1
                break
            over = re.match(r"\s*R(\d+)", operands) if writes else None
            if over and int(over.group(1)) in made:
                break
    return found


def describe(kernel: Any) -> dict[str, Any]:
    """Registers, spilled bytes, shared memory; the instructions of the longest loop, and the loads it waits for."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
        assembly = subprocess.run([TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    registers, stack, _, local = map(int, found.groups()) if found else (0, 0, 0, 0)
    longest = max(loops(assembly), key=len, default=())
    names = Counter(name.split(".")[0] for name, _ in longest)
    return {
        "registers": registers, "spilled": stack + local, "shared": kernel.metadata.shared,
        "warps": kernel.metadata.num_warps, "loop": len(longest), "barriers": names["BAR"],
        "waited": waits(longest),
    }  # fmt: skip


def stored(schemes: list[Scheme], sizes: list[int], inputs: int, experts: int | None = None) -> Matrix:
    """A matrix of zeros in planes."""
    from tramontane.backends.base import DenseStored
    from tramontane_backend_cuda.storage import PlaneStored

    made = Matrix("m", tuple(Part(str(i), size) for i, size in enumerate(sizes)), inputs, experts)
    made.schemes = tuple(schemes)
    cpu = torch.device("cpu")
    made.stored = PlaneStored.of(made, BF16, cpu) or DenseStored(made, BF16, cpu)
    for index, (scheme, size) in enumerate(zip(schemes, sizes, strict=True)):
        shape = (size, inputs) if experts is None else (experts, size, inputs)
        made.stored.fill(index, {n: torch.zeros(f.shape, dtype=f.dtype) for n, f in scheme.fields(shape).items()})
    return made


def param(*shape: int) -> Param:
    """A parameter of zeros."""
    made = Param("w", (Source("w", "weight", shape),), BF16)
    made.value = torch.zeros(shape, dtype=BF16)
    return made


def step(rows: int, tokens: int) -> Ctx:
    """A step of equal rows of 1024 keys."""
    return Ctx(
        ids_T=torch.zeros(tokens, dtype=torch.int64), positions_KT=torch.zeros(1, tokens, dtype=torch.int64),
        seq_of_T=torch.zeros(tokens, dtype=torch.int32),
        q_start=(torch.arange(rows + 1) * (tokens // rows)).to(torch.int32),
        kv_len_R=torch.full((rows,), 1024, dtype=torch.int32), out_rows_L=torch.zeros(1, dtype=torch.int64),
        groups=[GroupCtx(torch.zeros(rows, 64, dtype=torch.int32), torch.zeros(tokens, dtype=torch.int64))],
    )  # fmt: skip


def slot(dtype: torch.dtype, kv_heads: int = 8, dim: int = 128, *, latent: bool = False) -> CacheSlot:
    """A layer's cache."""
    spec = CacheSpec(kind=CacheKind.LATENT if latent else CacheKind.FULL, kv_heads=kv_heads, head_dim=dim, dtype=dtype)
    made = CacheSlot("layer", spec)
    made.planes = make_planes(plan_layout({"layer": spec}, 16), 4, torch.device("cpu"))["layer"]
    return made


SCHEMES: list[Scheme] = [
    Dense(BF16), Float8(granularity="channel"), Float8(granularity="block", block=(128, 128)), Codebook("nf4"),
    Micro("mxfp4"), Micro("nvfp4", global_scale=True), Affine(bits=4, group=128, zero="int"),
    Affine(bits=3, group=64, zero="int"), Affine(bits=6, group=64), Affine(bits=8, group=128),
    *(Ggml(name) for name in ("q4_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")),
]  # fmt: skip


def products() -> Iterator[tuple[str, Callable[[], None]]]:
    """Every layout for one token and for a few; norms and gates; the expansion."""
    from tramontane_backend_cuda.source import Extras, sources

    for scheme in SCHEMES:
        for tokens in (1, 16, 64):
            if tokens == 64 and scheme not in (SCHEMES[0], SCHEMES[6], Ggml("q4_k")):
                continue
            (source,) = sources(stored([scheme], [4352], 4096))  # type: ignore[misc]
            x, y = torch.zeros(tokens, 4096, dtype=BF16), torch.zeros(tokens, 4352, dtype=BF16)
            yield f"{scheme.name}, {tokens} tokens", lambda s=source, x=x, y=y: s.few(x, y)
        yield f"{scheme.name}, expanded", lambda s=source: s.expand_into(torch.zeros(4352, 4096, dtype=BF16))
    norm = torch.zeros(4096, dtype=BF16)
    for scheme in (SCHEMES[0], SCHEMES[6]):
        for tokens in (1, 4):
            (source,) = sources(stored([scheme] * 2, [4352, 4352], 4096) if scheme is not SCHEMES[0]
                                else stored([scheme], [8704], 4096))  # type: ignore[misc]  # fmt: skip
            x, y = torch.zeros(tokens, 4096, dtype=BF16), torch.zeros(tokens, 4352, dtype=BF16)
            extras = Extras(norm=norm, eps=1e-5, gate="silu")
            yield f"{scheme.name}, norm and gate, {tokens} tokens", lambda s=source, x=x, y=y, e=extras: s.few(x, y, e)
    (source,) = sources(stored([SCHEMES[6]], [256], 4096))  # type: ignore[misc]
    x = torch.zeros(1, 4096, dtype=BF16)
    yield "split", lambda: source.few(x, torch.zeros(1, 256, dtype=BF16), Extras(norm=norm, eps=1e-5))


def attentions() -> Iterator[tuple[str, Callable[[], None]]]:
    """Decoding and prompts, entries of all kinds, latents, rotation."""
    from tramontane.ops import AttendLatent
    from tramontane_backend_cuda import attention, latent, rotate

    for kept in (BF16, torch.float8_e4m3fn, torch.int8):
        for rows, tokens in ((1, 1), (4, 512)):
            op, ctx = Attend(32, 8, 128, 128, 0.1), step(rows, tokens)
            q, y = torch.zeros(tokens, 32, 128, dtype=BF16), torch.zeros(tokens, 4096, dtype=BF16)
            kernel = attention.attend(op, (slot(kept),))
            yield f"attend {kept}, {tokens} tokens", lambda k=kernel, c=ctx, q=q, y=y: k(c, (q,), (y,))
        write = RotateWrite(Rotate(), RmsNorm(1e-6))
        kernel = rotate.rotate_write(write, (slot(kept), param(128), param(128)))
        one = [torch.zeros(1, n, 128, dtype=BF16) for n in (32, 8, 8)]
        angles, out = torch.zeros(1, 128), torch.zeros(1, 32, 128, dtype=BF16)
        yield f"rotate_write {kept}", lambda k=kernel, o=one, a=angles, y=out: k(step(1, 1), (*o, a), (y,))
    special = Attend(32, 8, 128, 128, 0.1, window=512, softcap=30.0, sinks=True)
    kernel = attention.attend(special, (slot(BF16), param(32)))
    q, y = torch.zeros(1, 32, 128, dtype=BF16), torch.zeros(1, 4096, dtype=BF16)
    yield "attend with window, softcap and sinks", lambda k=kernel: k(step(1, 1), (q,), (y,))
    for heads in (16, 128):
        op = AttendLatent(heads=heads, nope_dim=128, rope_dim=64, rank=512, value_dim=128, scale=0.1)
        kernel = latent.attend_latent(op, (slot(BF16, 1, 576, latent=True), stored([Dense(BF16)], [heads * 256], 512)))
        parts = [torch.zeros(1, heads, n, dtype=BF16) for n in (128, 64)]
        out = torch.zeros(1, heads * 128, dtype=BF16)
        yield f"attend_latent, {heads} heads", lambda k=kernel, p=parts, y=out: k(step(1, 1), p, (y,))


def mixtures() -> Iterator[tuple[str, Callable[[], None]]]:
    """Routers and experts, of few tokens and of many."""
    from tramontane_backend_cuda import experts, router

    for op in (Router(top_k=8, normalize=True), Router(
        top_k=8, scoring="sigmoid", correction=True, groups=8, top_groups=4, group_score="best_two")):  # fmt: skip
        kernel = router.router(op, (stored([Dense(BF16)], [128], 2048), *[param(128)] * op.correction))
        x, outs = torch.zeros(1, 2048, dtype=BF16), (torch.zeros(1, 8), torch.zeros(1, 8, dtype=torch.int32))
        yield f"router {op.scoring}", lambda k=kernel, x=x, o=outs: k(None, (x,), o)
    for scheme in (Dense(BF16), Float8(granularity="block", block=(128, 128)), Micro("mxfp4")):
        up = stored([scheme] * 2 if scheme != SCHEMES[0] else [scheme], [768] * 2 if scheme != SCHEMES[0] else [1536],
                    2048, 8)  # fmt: skip
        kernel = experts.experts(Experts(2048, GatedActivate("silu")), (up, stored([scheme], [2048], 768, 8)))
        for tokens in (1, 64):
            inputs = (torch.zeros(tokens, 2048, dtype=BF16), torch.zeros(tokens, 4),
                      torch.zeros(tokens, 4, dtype=torch.int32))  # fmt: skip
            out = torch.zeros(tokens, 2048, dtype=BF16)
            yield f"experts {scheme.name}, {tokens} tokens", lambda k=kernel, i=inputs, y=out: k(None, i, (y,))


def recurrences() -> Iterator[tuple[str, Callable[[], None]]]:
    """Convolution and delta rule as Qwen3-Next has them, for one token and for a mixed step."""
    from types import SimpleNamespace

    from tramontane_backend_cuda import recurrent

    delta = GatedDelta(key_heads=16, value_heads=32, key_dim=128, value_dim=128)
    conv = CausalConv(4, "silu")
    states = SimpleNamespace(states=(torch.zeros(3, 32, 128, 128),))
    inputs = SimpleNamespace(states=(torch.zeros(3, 8192, 3, dtype=BF16),))
    for rows, tokens in ((1, 1), (4, 64)):
        ctx = step(rows, tokens)
        ctx.state_slot_R, ctx.state_fresh_R = torch.ones(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.bool)
        kernel = recurrent.causal_conv(conv, (inputs, param(8192, 4)))
        x = torch.zeros(tokens, 8192, dtype=BF16)
        yield f"causal_conv, {tokens} tokens", lambda k=kernel, c=ctx, x=x: k(c, (x,), (torch.zeros_like(x),))
        kernel = recurrent.gated_delta(delta, (states, param(32), param(32)))
        given = [torch.zeros(tokens, width, dtype=BF16) for width in (2048, 2048, 4096, 32, 32)]
        yield f"gated_delta, {tokens} tokens", lambda k=kernel, c=ctx, g=given: k(c, g, (torch.zeros_like(g[2]),))


def draws() -> Iterator[tuple[str, Callable[[], None]]]:
    """Greedy rows, and rows of any path."""
    from tramontane.sampler.select import Knobs
    from tramontane.sampler.state import Path as Way
    from tramontane_backend_cuda.drawing import draw_rows

    logits, real, whole = torch.zeros(4, 151_936), torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.int64)
    knobs = Knobs(real.float(), whole, real, real, 1, any_min_p=True, path_R=whole)
    yield "greedy draws", lambda: draw_rows(Way.GREEDY, logits)
    yield "draws of any path", lambda: draw_rows(None, logits, knobs, real)


def inputs() -> Iterator[tuple[str, Callable[[], None]]]:
    """A batch of a model with two cache groups and states, from a record."""
    from tramontane.fields import Fields
    from tramontane.rows import Size, StepRows
    from tramontane_backend_cuda.fill import fill

    whole, words = torch.zeros(16, dtype=torch.int64), torch.zeros(64, dtype=torch.int32)
    tables = [torch.zeros(4, 128, dtype=torch.int32) for _ in range(2)]
    batch = Fields(
        ids=whole, positions=torch.zeros(1, 16, dtype=torch.int64), seq_of=words, q_start=words, kv_len=words,
        out_rows=whole, state_slot=whole, state_fresh=torch.zeros(16, dtype=torch.bool), feed_to=whole, feed_from=whole,
        counts=words, slots=[whole, whole], tables=tables,
    )  # fmt: skip
    rows = StepRows(words, whole, tables, (16, 16), states=True)
    yield "inputs", lambda: fill(rows, batch, Size(16, 4, 4, (128, 128)))


GROUPS = {
    "products": products, "attentions": attentions, "mixtures": mixtures, "recurrences": recurrences, "draws": draws,
    "inputs": inputs,
}  # fmt: skip


def main(groups: list[str]) -> None:
    """Compile these groups, or everything."""
    driver.set_active(NoCard())
    JITFunction.run = _compile_only
    made: list[dict[str, Any]] = []
    for group in groups or GROUPS:
        for name, launch in GROUPS[group]():
            print(name, file=sys.stderr, flush=True)
            COMPILED.clear()
            launch()
            made += [{"use": name, "kernel": kernel.split()[0], **describe(one)} for kernel, one in COMPILED.items()]
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1:])
