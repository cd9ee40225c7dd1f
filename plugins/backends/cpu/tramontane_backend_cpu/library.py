# SPDX-License-Identifier: Apache-2.0
"""Finding and loading the native library: once per process, or a reason why not."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

import torch
from attrs import define, field
from torch import Tensor

import tramontane_backend_cpu
from tramontane.saved.digests import digest_file
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.prototypes import declare
from tramontane_backend_cpu.threads import thread_count

PATH_VARIABLE = "TRAMONTANE_CPU_LIBRARY"
ISA_VARIABLE = "TRAMONTANE_CPU_ISA"
ISAS = ("portable", "avx2", "avx512", "avx512bf16", "amx")
"""Instruction sets, lowest first."""
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class LibraryError(Exception):
    """The native library cannot be used; the text says why, and what to do."""


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        LibraryError: It was not built, does not load, or is of another version.
    """
    path = _find()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(f"{path} does not load: {error}") from None
    version = loaded.tm_abi()
    if version != abi.ABI:
        needs = f"this package needs {abi.ABI}; reinstall tramontane-backend-cpu"
        raise LibraryError(f"{path} has interface {version}, {needs}")
    declare(loaded)
    _choose(loaded, os.environ.get(ISA_VARIABLE, ""))
    return loaded


def choose_isa(wanted: str) -> None:
    """Use this instruction set from now on; empty is the best there is. Weights already stored stay valid.

    Raises:
        LibraryError: There is no such set, or the processor does not have it.
    """
    _choose(library(), wanted)


def _choose(loaded: ctypes.CDLL, wanted: str) -> None:
    if not loaded.tm_choose_isa(wanted.encode()):
        runs = ", ".join(_runnable(loaded))
        raise LibraryError(f"instruction set {wanted!r} ({ISA_VARIABLE}) cannot be used; this machine runs {runs}")


def _runnable(loaded: ctypes.CDLL) -> list[str]:
    return [isa for isa in ISAS if loaded.tm_can_run(isa.encode())]


def runnable_isas() -> list[str]:
    """Instruction sets that this build and this processor have, lowest first."""
    return _runnable(library())


def current_isa() -> str:
    """The instruction set in use."""
    return str(library().tm_isa().decode())


@functools.cache
def library_digest() -> str:
    """Tells one build of the library from another."""
    return digest_file(_find())


def _find() -> Path:
    given = os.environ.get(PATH_VARIABLE)
    if given:
        return Path(given)
    # An editable installation keeps the library beside a second folder of the package.
    name = f"libtramontane_cpu{_SUFFIX}"
    for folder in tramontane_backend_cpu.__path__:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise LibraryError(
        "it was installed without its native library, for want of a working C++17 compiler (GCC or Clang); "
        "install one and reinstall tramontane-backend-cpu"
    )


@define(eq=False)
class Pool:
    """Threads that run kernels. Shared by everything in the process that asks for the same number."""

    threads: int
    handle: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.handle = library().tm_pool_new(self.threads)


@functools.cache
def pool(threads: int) -> Pool:
    """The process's pool of that many threads. Never freed: threads asleep cost nothing."""
    return Pool(threads)


def default_pool() -> Pool:
    """The pool that models use unless told otherwise."""
    return pool(thread_count())


def empty_bytes(count: int) -> Tensor:
    """Uninitialized memory, on huge pages where the system has them: uint8 [count].

    They spare address translation, which at one 4 KiB page per 64 cache lines is felt by whatever streams weights.
    """
    made = torch.empty(count, dtype=torch.uint8)
    library().tm_huge_pages(made.data_ptr(), count)
    return made
