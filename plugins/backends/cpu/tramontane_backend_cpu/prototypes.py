# SPDX-License-Identifier: Apache-2.0
"""The functions that ``native/abi.h`` exports, as ctypes calls them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_void_p
from typing import Any

from tramontane_backend_cpu.abi import Draw, Matrix, Node, Quantize, Step


def declare(library: ctypes.CDLL) -> None:
    """Declare the exported functions' arguments and results."""
    signatures: dict[str, tuple[Any, ...]] = {
        "tm_abi": (c_int32,),
        "tm_sizeof": (c_int64, ctypes.c_char_p),
        "tm_isa": (ctypes.c_char_p,),
        "tm_choose_isa": (c_int32, ctypes.c_char_p),
        "tm_can_run": (c_int32, ctypes.c_char_p),
        "tm_pool_new": (c_void_p, c_int32),
        "tm_pool_free": (None, c_void_p),
        "tm_program_new": (c_void_p, POINTER(Node), c_int64),
        "tm_program_free": (None, c_void_p),
        "tm_program_run": (c_int32, c_void_p, c_void_p, POINTER(Step)),
        "tm_node_run": (c_int32, POINTER(Node), c_void_p, POINTER(Step)),
        "tm_matrix_bytes": (c_int64, POINTER(Matrix)),
        "tm_matrix_pack": (None, c_void_p, POINTER(Matrix), c_void_p, c_int64, c_int32),
        "tm_matrix_unpack": (None, c_void_p, POINTER(Matrix), c_void_p, c_int64),
        "tm_matrix_rows": (c_int32, c_void_p, POINTER(Matrix), c_void_p, c_int64, c_void_p, c_int64, c_int32),
        "tm_quantize_rows": (c_int32, c_void_p, POINTER(Quantize)),
        "tm_draw_rows": (c_int32, c_void_p, POINTER(Draw)),
        "tm_huge_pages": (None, c_void_p, c_int64),
        "tm_read": (ctypes.c_double, c_void_p, c_void_p, c_int64),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
