# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's own shared libraries as a peer, through their C interface; for tests marked ``full``.

``LLAMA_CPP_LIBRARIES`` names the folder that holds them; npm's ``@node-llama-cpp/linux-x64`` package has a prebuilt set
in ``bins/linux-x64``. Parameter structures are only ever taken from the library and handed back: larger than any
version's, they are passed on the stack, where the callee reads as much as it knows.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

VARIABLE = "LLAMA_CPP_LIBRARIES"
PARAMETER_BYTES = 1024


class _Parameters(ctypes.Structure):
    _fields_ = [("raw", ctypes.c_ubyte * PARAMETER_BYTES)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def _library(folder: Path, name: str) -> ctypes.CDLL:
    found = sorted(folder.glob(f"{name}.so")) + sorted(folder.glob(f"{name}.v*.so"))
    if not found:
        pytest.skip(f"{folder} has no {name}.so")
    return ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)


@cache
def libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """(ggml, llama); skips the test where they are missing."""
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{VARIABLE} names no folder with llama.cpp's shared libraries")
    base, ggml = _library(Path(folder), "libggml-base"), _library(Path(folder), "libggml")
    ggml.ggml_backend_load_all_from_path(folder.encode())
    llama = _library(Path(folder), "libllama")
    llama.llama_backend_init()
    for name, result in {
        "llama_model_default_params": _Parameters,
        "llama_context_default_params": _Parameters,
        "llama_batch_init": _Batch,
        "llama_model_load_from_file": ctypes.c_void_p,
        "llama_init_from_model": ctypes.c_void_p,
        "llama_model_get_vocab": ctypes.c_void_p,
        "llama_get_logits_ith": ctypes.POINTER(ctypes.c_float),
    }.items():
        getattr(llama, name).restype = result
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    return base, llama


def quantize(values: NDArray[np.float32], number: int, nbytes: int, importance: Any = None) -> NDArray[np.uint8]:
    """Rows packed by ggml; ``number`` is the type's, ``nbytes`` the bytes of a row."""
    base, _ = libraries()
    rows, inputs = values.shape
    packed = np.zeros((rows, nbytes), np.uint8)
    base.ggml_quantize_chunk(
        ctypes.c_int(number),
        ctypes.c_void_p(values.ctypes.data),
        ctypes.c_void_p(packed.ctypes.data),
        ctypes.c_int64(0),
        ctypes.c_int64(rows),
        ctypes.c_int64(inputs),
        ctypes.c_void_p(None if importance is None else importance.ctypes.data),
    )
    return packed


def logits(path: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits of every token of a text, float32 [tokens, vocabulary], computed in float32 throughout."""
    _, llama = libraries()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    assert model, f"llama.cpp cannot load {path}"
    parameters = llama.llama_context_default_params()
    _exact(parameters)
    context = llama.llama_init_from_model(ctypes.c_void_p(model), parameters)
    assert context, "llama.cpp makes no context"
    vocabulary = llama.llama_vocab_n_tokens(ctypes.c_void_p(llama.llama_model_get_vocab(ctypes.c_void_p(model))))
    try:
        assert llama.llama_decode(ctypes.c_void_p(context), _batch(llama, ids)) == 0
        rows = (llama.llama_get_logits_ith(ctypes.c_void_p(context), row) for row in range(len(ids)))
        return np.stack([np.ctypeslib.as_array(row, (vocabulary,)).copy() for row in rows])
    finally:
        llama.llama_free(ctypes.c_void_p(context))
        llama.llama_model_free(ctypes.c_void_p(model))


def tokenize(path: Path, text: str) -> list[int]:
    """Ids of a text, nothing added, nothing read as special."""
    _, llama = libraries()
    parameters = llama.llama_model_default_params()
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp cannot load {path}"
    vocabulary = ctypes.c_void_p(llama.llama_model_get_vocab(ctypes.c_void_p(model)))
    raw, found = text.encode(), (ctypes.c_int32 * 4096)()
    count = llama.llama_tokenize(vocabulary, raw, len(raw), found, 4096, ctypes.c_bool(False), ctypes.c_bool(False))
    llama.llama_model_free(ctypes.c_void_p(model))
    assert count >= 0
    return list(found[:count])


def alone(call: str, folder: Path) -> Any:
    """What a call of this module gives, from a process of its own: llama.cpp ends the process where an assertion of its
    fails."""
    libraries()
    result = folder / "result.npy"
    code = f"import llama_cpp, numpy; numpy.save({str(result)!r}, llama_cpp.{call})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(result)


def _exact(parameters: _Parameters) -> None:
    """Keys and values in float32, and attention without the fused kernel, which computes in float16.

    The types are two neighbouring 1s (float16), to be 0; the kernel is the last of four -1s, choices of the library.
    """
    words = list(struct.unpack_from("<64i", bytes(parameters.raw)))
    (types,) = [at for at in range(16, 40) if words[at : at + 2] == [1, 1]]
    (choices,) = [at for at in range(40) if words[at : at + 4] == [-1] * 4]
    words[types : types + 2] = [0, 0]
    words[choices + 3] = 0
    ctypes.memmove(parameters.raw, struct.pack("<64i", *words), 256)


def _batch(llama: ctypes.CDLL, ids: Sequence[int]) -> _Batch:
    batch: _Batch = llama.llama_batch_init(ctypes.c_int32(len(ids)), ctypes.c_int32(0), ctypes.c_int32(1))
    tokens = ctypes.cast(batch.token, ctypes.POINTER(ctypes.c_int32))
    counts = ctypes.cast(batch.n_seq_id, ctypes.POINTER(ctypes.c_int32))
    sequences = ctypes.cast(batch.seq_id, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        tokens[place], batch.pos[place], counts[place], batch.logits[place] = token, place, 1, 1
        sequences[place][0] = 0
    return batch
