# SPDX-License-Identifier: Apache-2.0
"""Products of the native CPU backend, by weight type and number of rows: ``python tests/perf/cpu_kernels.py``.

Few rows are measured by the bytes of weights read a second, against the backend's own read kernel over as much memory
in the same rotation; many rows by multiplications and additions a second. Weights are random, several copies are cycled
through so that they come from memory; ``--cached`` keeps one small matrix that a core's second-level cache holds, which
tells what the instructions allow. ``--against LIBRARY`` runs another build of the native library on the same weights,
turn and turn about: what a change gave, also on a machine that is never quiet.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from tramontane.ops import Linear
from tramontane.schemes import Dense, Float8, Ggml, Scheme
from tramontane.schemes.ggml import CODECS
from tramontane.weights import Matrix, Part
from tramontane_backend_cpu import abi, layouts
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import make
from tramontane_backend_cpu.library import current_isa, empty_bytes, library, pool
from tramontane_backend_cpu.operands import of_tensor
from tramontane_backend_cpu.prototypes import declare

FACTORS = {
    "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208, 1), "q8_0": (0, 1), "q4_0": (0, 1), "q2_k": (80, 2), "q3_k": (108, 1),
    "iq4_nl": (0, 1), "iq4_xs": (0, 1), "mxfp4": (0, 0), "nvfp4": (0, 0), "tq1_0": (52, 1), "tq2_0": (64, 1),
    "iq1_s": (0, 1), "iq1_m": (0, 0), "iq2_xxs": (0, 1), "iq2_xs": (0, 1), "iq2_s": (0, 1), "iq3_xxs": (0, 1),
    "iq3_s": (0, 1),
}  # fmt: skip
"""Where a block's float16 factors lie, and how many they are."""
_FILES = "tramontane_quant_gguf"
_CODECS = import_module(f"{_FILES}.codecs").CODECS if find_spec(_FILES) else CODECS
TYPES: dict[str, Scheme] = {
    **{name: Ggml(type=_CODECS[name]) for name in FACTORS if name in _CODECS},
    "fp8": Float8(fmt="e4m3", granularity="channel"), "bf16": Dense(torch.bfloat16), "f32": Dense(torch.float32),
}  # fmt: skip
USUAL = ("q4_k", "q5_k", "q6_k", "q8_0", "q4_0", "q2_k", "q3_k", "bf16", "f32")


def fields_of(scheme: Scheme, outputs: int, inputs: int) -> dict[str, Tensor]:
    """Random weights; factors of blocks are small numbers, all other bits are free."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(scheme, Dense):
        return {"weight": (torch.randn(outputs, inputs, generator=generator) * 0.02).to(scheme.dtype)}
    if isinstance(scheme, Float8):
        return scheme.quantize(torch.randn(outputs, inputs, generator=generator) * 0.02)
    assert isinstance(scheme, Ggml)
    block, nbytes = scheme.type.block, scheme.type.nbytes
    made = torch.randint(0, 256, (outputs * inputs // block, nbytes), generator=generator, dtype=torch.uint8)
    at, count = FACTORS[scheme.type.name]
    made[:, at : at + 2 * count] = torch.full((len(made), count), 1e-3, dtype=torch.float16).view(torch.uint8)
    match scheme.type.name:  # whose scales are bytes
        case "mxfp4":
            made[:, 0] = 120
        case "nvfp4":
            made[:, :4] = made[:, :4] % 0x60
        case "iq1_m":
            made[:, 55] %= 0x20
    return {"weight": made.reshape(outputs, -1)}


def stored(scheme: Scheme, outputs: int, inputs: int, activations: torch.dtype) -> Matrix:
    """A matrix in its native layout."""
    matrix = Matrix("m", (Part("m", outputs),), inputs, uses={"linear"})
    matrix.schemes = (scheme,)
    matrix.stored = layouts.store(matrix, activations)
    assert matrix.stored is not None
    matrix.stored.fill(0, fields_of(scheme, outputs, inputs))
    return matrix


def clock_of(engine: Engine) -> Callable[[], float]:
    """One thread is timed by its own processor time, which others on the machine disturb less."""
    return time.thread_time if engine.pool.threads == 1 else time.perf_counter


class Case:
    """One type and number of rows: ``run()`` gives the seconds of one product."""

    def __init__(self, name: str, shape: tuple[int, int], rows: int, copies: int, engine: Engine, dtype: torch.dtype):
        self.name, self.rows, self.shape = name, rows, shape
        self.clock = clock_of(engine)
        self.matrices = [stored(TYPES[name], *shape, dtype) for _ in range(copies)]
        assert self.matrices[0].stored is not None
        self.nbytes = self.matrices[0].stored.nbytes
        self.kernels = [make(Linear(shape[0]), (matrix,), engine) for matrix in self.matrices]
        assert all(isinstance(kernel, NativeKernel) for kernel in self.kernels), self.kernels
        self.x = torch.randn(rows, shape[1]).to(dtype)
        self.y = torch.empty(rows, shape[0], dtype=dtype)

        self.nodes = [kernel.node([of_tensor(self.x), of_tensor(self.y)]) for kernel in self.kernels]

    def run(self, loaded: ctypes.CDLL, pool_handle: int) -> float:
        """All copies once, one after the other."""
        step = abi.Step()
        start = self.clock()
        for node in self.nodes:
            loaded.tm_node_run(ctypes.byref(node), pool_handle, ctypes.byref(step))
        return (self.clock() - start) / len(self.nodes)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="*", default=USUAL, choices=list(TYPES))
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 4, 8, 64, 512])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shape", nargs=2, type=int, default=(8192, 2048), metavar=("OUT", "IN"))
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--float32", action="store_true", help="activations of float32 instead of bfloat16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", metavar="LIBRARY", help="another build of the native library")
    asked = parser.parse_args()
    shape = (256, 2048) if asked.cached else tuple(asked.shape)
    engine, dtype = Engine(pool(asked.threads)), torch.float32 if asked.float32 else torch.bfloat16
    room = empty_bytes(1 << 17 if asked.cached else 256 << 20).random_(0, 127)
    other = None if asked.against is None else second_library(asked.against, asked.threads)
    print(f"{current_isa()}, {asked.threads} threads, {shape[0]} x {shape[1]}, activations {dtype}")
    for name in asked.types:
        for rows in asked.rows:
            copies = 1 if asked.cached or rows > 16 else 6
            case = Case(name, shape, rows, copies, engine, dtype)
            taken, read, others = [], [], []
            for turn in range(asked.rounds * (20 if asked.cached else 1)):
                start = case.clock()
                library().tm_read(engine.pool.handle, ctypes.c_void_p(room.data_ptr()), room.numel())
                reading = case.clock() - start
                seconds = case.run(library(), engine.pool.handle)
                if turn:
                    taken.append(seconds)
                    read.append(room.numel() / reading / 1e9)
                if turn and other is not None:
                    others.append(case.run(*other))
            report(case, taken, read, others)


def second_library(path: str, threads: int) -> tuple[ctypes.CDLL, int]:
    """Another build, and a pool of its own."""
    loaded = ctypes.CDLL(path)
    declare(loaded)
    loaded.tm_choose_isa(current_isa().encode())
    return loaded, loaded.tm_pool_new(threads)


def report(case: Case, taken: list[float], read: list[float], others: list[float]) -> None:
    """One line: medians, the best, and medians of the ratios pair by pair."""
    rates = [case.nbytes / seconds / 1e9 for seconds in taken]
    work = 2 * case.rows * case.shape[0] * case.shape[1] / 1e9
    pairs = statistics.median(rate / reads for rate, reads in zip(rates, read, strict=True))
    print(
        f"{case.name:5} M={case.rows:<4} {statistics.median(rates):6.1f} GB/s (best {max(rates):5.1f}), read kernel "
        f"{statistics.median(read):5.1f}, ratio {pairs:.2f}; {work / statistics.median(taken):7.1f} GFLOP/s "
        f"(best {work / min(taken):7.1f})",
        flush=True,
        end="" if others else "\n",
    )
    if others:
        ratio = statistics.median(b / a for a, b in zip(taken, others, strict=True))
        print(f"; {ratio:.2f} of the other build (best {min(others) / min(taken):.2f})", flush=True)


if __name__ == "__main__":
    main()
