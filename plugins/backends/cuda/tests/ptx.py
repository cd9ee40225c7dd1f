# SPDX-License-Identifier: Apache-2.0
"""The few PTX instructions that decoders are made of, done with numpy for many words at a time.

Rules from NVIDIA's PTX ISA: ``prmt`` takes nibble ``i`` of its selector for byte ``i`` of the result, of which bits 0
to 2 choose a byte of ``{b, a}`` and bit 3 would spread its sign; ``fma.rn.bf16x2`` rounds once and keeps subnormal
numbers. An instruction that is not known, or a register that nobody wrote, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
_LINE = re.compile(r"^(@?[a-z][\w.]*)\s+(.*)$")


def to_float(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The bfloat16 numbers of 16 bits each."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded(exact: NDArray[np.float64]) -> Words:
    """To the nearest bfloat16, halves to even. The numbers have to fit a float32, or they would be rounded twice."""
    single = exact.astype(np.float32)
    assert np.array_equal(single.astype(np.float64), exact), "a sum of more bits than this can round"
    bits = single.view(np.uint32)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _fma(a: Words, b: Words, c: Words) -> Words:
    made = np.zeros_like(a)
    for shift in (0, 16):
        x, y, z = (to_float((one >> shift) & 0xFFFF).astype(np.float64) for one in (a, b, c))
        made |= _rounded(x * y + z) << shift
    return made


def _prmt(a: Words, b: Words, selector: Words) -> Words:
    both = (b.astype(np.uint64) << 32) | a
    made = np.zeros_like(a)
    for place in range(4):
        chosen = (selector >> (4 * place)) & 0xF
        assert not (chosen & 8).any(), "spreading signs is not done here"
        byte = (both >> (8 * chosen.astype(np.uint64))) & 0xFF
        made |= byte.astype(np.uint32) << (8 * place)
    return made


OPERATIONS: Mapping[str, Callable[..., Words]] = {
    "mov.b32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "shl.b32": lambda a, b: a << b,
    "shr.u32": lambda a, b: a >> b,
    "prmt.b32": _prmt,
    "fma.rn.bf16x2": _fma,
}


def run(code: str, word: Words) -> tuple[Words, Words]:
    """What inline code leaves in ``$0`` and ``$1`` for the words in ``$2``."""
    registers, declared = {"$2": word}, {"$0", "$1", "$2"}

    def value(name: str) -> Words:
        if re.fullmatch(r"0x[0-9a-f]+|\d+", name):
            return np.full_like(word, int(name, 0))
        return registers[name]

    for line in code.strip().removeprefix("{").removesuffix("}").split(";"):
        if not line.strip():
            continue
        found = _LINE.match(line.strip())
        if found is None:
            if line.strip().startswith(".reg .b32 "):
                declared |= {name.strip() for name in line.strip().removeprefix(".reg .b32 ").split(",")}
                continue
            raise ValueError(f"no instruction: {line!r}")
        target, *given = (name.strip() for name in found[2].split(","))
        assert target in declared, f"{target} is no register"
        registers[target] = OPERATIONS[found[1]](*(value(name) for name in given))
    return registers["$0"], registers["$1"]


def decoded(code: str, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of bytes [.., 4 n], as Triton gives them to elements: two in each register, the lower one first."""
    first, second = run(code, np.ascontiguousarray(planes).view("<u4"))
    parts = [first & 0xFFFF, first >> 16, second & 0xFFFF, second >> 16]
    return to_float(np.stack(parts, axis=-1).reshape(planes.shape))
