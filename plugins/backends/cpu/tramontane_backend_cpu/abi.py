# SPDX-License-Identifier: Apache-2.0
"""The structures and numbers of ``native/abi.h``, as ctypes see them. Nothing else: no library is loaded here."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from typing import Any, ClassVar

import torch

ABI = 5
MAX_VALUES = 6
MOST_PARTS = 8
"""Parts of one product (``MOST_PARTS`` of ``kernels/linear.cpp``)."""
MOST_DIM = 1024
"""Features of one head (``MOST_DIM`` of ``kernels/rotary.cpp``)."""

DTYPES: dict[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int64: 3, torch.int32: 4}
"""``tm_dtype``."""
CACHE_DTYPES = {
    torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float8_e4m3fn: 5, torch.int8: 6,
}  # fmt: skip
"""``tm_dtype`` of what entries of the cache are made of."""
BYTES = 6
"""``TM_I8``, where what is stored is bytes."""
ACTIVATION_TYPES = (torch.float32, torch.bfloat16)
"""Types that kernels compute in; weights and caches may also be float16."""


class Place(IntEnum):
    """``tm_place``."""

    POINTER = 0
    ARENA = 1
    IDS = 2
    POSITIONS = 3
    OUT_ROWS = 4


class Layout(IntEnum):
    """``tm_layout``."""

    ROW_MAJOR = 0
    PANELS = 1
    BLOCKS = 2
    CODES = 3


class Coding(IntEnum):
    """``tm_coding``."""

    Q8_0 = 0
    Q4_0 = 1
    Q4_1 = 2
    Q5_0 = 3
    Q5_1 = 4
    Q4_K = 5
    Q5_K = 6
    Q6_K = 7
    AFFINE4 = 8
    AFFINE8 = 9
    AFFINE4_ZERO = 10
    AFFINE8_ZERO = 11
    AFFINE4_OFFSET = 12
    AFFINE8_OFFSET = 13
    TABLE4 = 14
    E4M3 = 15
    E5M2 = 16
    Q2_K = 17
    Q3_K = 18
    IQ4_NL = 19
    IQ4_XS = 20
    TQ1_0 = 21
    TQ2_0 = 22
    MXFP4 = 23
    NVFP4 = 24
    IQ1_S = 25
    IQ1_M = 26
    IQ2_XXS = 27
    IQ2_XS = 28
    IQ2_S = 29
    IQ3_XXS = 30
    IQ3_S = 31


class Code(IntEnum):
    """``tm_code``."""

    BITS = 0
    E4M3 = 1
    E5M2 = 2


class Packing(IntEnum):
    """``tm_packing``."""

    Q4_0 = 0
    Q4_1 = 1
    Q5_0 = 2
    Q5_1 = 3
    Q8_0 = 4
    Q2_K = 5
    Q3_K = 6
    Q4_K = 7
    Q5_K = 8
    Q6_K = 9
    IQ4_NL = 10
    IQ4_XS = 11
    RANGE = 12
    HQQ = 13
    TABLE = 14
    MXFP4 = 15


class Status(IntEnum):
    """``tm_status``."""

    OK = 0
    BAD_INDEX = 1
    NO_MEMORY = 2


KERNELS = (
    "embed", "linear", "take_rows", "rms_norm", "add_rms_norm", "layer_norm", "rope_angles", "rotate", "rotate_write",
    "cache_write", "attend", "activate", "gated_activate", "add", "multiply", "scale", "softcap",
    "router", "experts", "latent_write", "attend_latent", "causal_conv", "gated_delta",
)  # fmt: skip
"""``tm_kernel``: names of ops in the order of their numbers. ``linear`` also runs ``linear_gated``."""

ACTIVATIONS = {
    "silu": 1, "swish": 1, "gelu": 2, "gelu_tanh": 3, "gelu_pytorch_tanh": 3, "gelu_new": 3, "gelu_fast": 3, "relu": 4,
    "relu2": 5, "sigmoid": 6,
}  # fmt: skip
"""``tm_activation``, by the names of :data:`tramontane.ops.ACTIVATIONS`."""


CLAMPED_SWIGLU = 7
"""``tm_activation`` of the gate that looks at both of its halves."""

DRAW_PATHS = {"GREEDY": 1, "FULL": 2, "TOP_K": 3, "TOP_P": 4}
"""``tm_draw_path``, by the names of :class:`tramontane.sampler.state.Path`."""
SCORINGS = {"softmax": 0, "sigmoid": 1, "sparsemixer": 2}
"""``tm_scoring``, by the names of :class:`tramontane.ops.Router`."""


class Struct(Structure):
    """Base of the mirrored structures; ``names`` is what C calls it."""

    names: ClassVar[str]


class Value(Struct):
    """``tm_value``."""

    names = "tm_value"
    _fields_: ClassVar[Any] = [
        ("pointer", c_void_p), ("offset", c_int64), ("stride", c_int64), ("width", c_int64), ("per_token", c_int64),
        ("per_output", c_int64), ("constant", c_int64), ("dtype", c_int32), ("place", c_int32),
    ]  # fmt: skip


class Node(Struct):
    """``tm_node``."""

    names = "tm_node"
    _fields_: ClassVar[Any] = [
        ("params", c_void_p), ("kernel", c_int32), ("count", c_int32), ("values", Value * MAX_VALUES),
    ]  # fmt: skip


class Group(Struct):
    """``tm_group``."""

    names = "tm_group"
    _fields_: ClassVar[Any] = [("table", c_void_p), ("table_stride", c_int64), ("slots", c_void_p)]


class Step(Struct):
    """``tm_step``."""

    names = "tm_step"
    _fields_: ClassVar[Any] = [
        ("tokens", c_int64), ("rows", c_int64), ("outputs", c_int64), ("streams", c_int64),
        ("position_stride", c_int64), ("ids", c_void_p), ("positions", c_void_p), ("out_rows", c_void_p),
        ("q_start", c_void_p), ("kv_len", c_void_p), ("groups", POINTER(Group)), ("arena", c_void_p),
        ("state_slot", c_void_p), ("state_fresh", c_void_p),
    ]  # fmt: skip


class Matrix(Struct):
    """``tm_matrix``."""

    names = "tm_matrix"
    _fields_: ClassVar[Any] = [
        ("data", c_void_p), ("extra", c_void_p * 3), ("outputs", c_int64), ("inputs", c_int64), ("sizes", c_int64 * 4),
        ("layout", c_int32), ("dtype", c_int32),
    ]  # fmt: skip


class Codes(Struct):
    """``tm_codes``."""

    names = "tm_codes"
    _fields_: ClassVar[Any] = [
        ("rows", c_void_p), ("scales", c_void_p), ("zeros", c_void_p), ("table", c_void_p), ("group_of", c_void_p),
        ("row_bytes", c_int64), ("groups", c_int64), ("group", c_int64), ("rows_each", c_int64),
        ("scale_rows", c_int64), ("middle", c_float), ("code", c_int32), ("bits", c_int32), ("shifted", c_int32),
    ]  # fmt: skip


class Plane(Struct):
    """``tm_plane``."""

    names = "tm_plane"
    _fields_: ClassVar[Any] = [
        ("data", c_void_p), ("block_stride", c_int64), ("token_stride", c_int64), ("head_stride", c_int64),
    ]  # fmt: skip


class Cache(Struct):
    """``tm_cache``."""

    names = "tm_cache"
    _fields_: ClassVar[Any] = [
        ("keys", Plane), ("values", Plane), ("block_tokens", c_int64), ("dtype", c_int32), ("group", c_int32),
    ]  # fmt: skip


class Embed(Struct):
    """``tm_embed``."""

    names = "tm_embed"
    _fields_: ClassVar[Any] = [("matrix", Matrix), ("scale", c_float)]


class Linear(Struct):
    """``tm_linear``."""

    names = "tm_linear"
    _fields_: ClassVar[Any] = [
        ("parts", POINTER(Matrix)), ("bias", c_void_p), ("count", c_int32), ("bias_dtype", c_int32), ("gate", c_int32),
    ]  # fmt: skip


class Norm(Struct):
    """``tm_norm``."""

    names = "tm_norm"
    _fields_: ClassVar[Any] = [
        ("weight", c_void_p), ("bias", c_void_p), ("width", c_int64), ("eps", c_float), ("weight_dtype", c_int32),
        ("late_cast", c_int32), ("apart", c_int32),
    ]  # fmt: skip


class RopeAngles(Struct):
    """``tm_rope_angles``."""

    names = "tm_rope_angles"
    _fields_: ClassVar[Any] = [
        ("table", c_void_p), ("pairs", c_int64), ("sections", POINTER(c_int64)), ("streams", c_int64),
    ]  # fmt: skip


class Rotate(Struct):
    """``tm_rotate``."""

    names = "tm_rotate"
    _fields_: ClassVar[Any] = [
        ("heads", c_int64), ("kv_heads", c_int64), ("head_dim", c_int64), ("q_apart", c_int64), ("k_apart", c_int64),
        ("interleaved", c_int32),
    ]  # fmt: skip


class RotateWrite(Struct):
    """``tm_rotate_write``."""

    names = "tm_rotate_write"
    _fields_: ClassVar[Any] = [
        ("rotate", Rotate), ("q_norm", Norm), ("k_norm", Norm), ("cache", Cache), ("value_dim", c_int64),
    ]  # fmt: skip


class CacheWrite(Struct):
    """``tm_cache_write``."""

    names = "tm_cache_write"
    _fields_: ClassVar[Any] = [
        ("cache", Cache), ("kv_heads", c_int64), ("key_dim", c_int64), ("value_dim", c_int64),
    ]  # fmt: skip


class Attend(Struct):
    """``tm_attend``."""

    names = "tm_attend"
    _fields_: ClassVar[Any] = [
        ("cache", Cache), ("sinks", c_void_p), ("heads", c_int64), ("kv_heads", c_int64), ("head_dim", c_int64),
        ("value_dim", c_int64), ("window", c_int64), ("scale", c_float), ("softcap", c_float),
    ]  # fmt: skip


class Pointwise(Struct):
    """``tm_pointwise``."""

    names = "tm_pointwise"
    _fields_: ClassVar[Any] = [("activation", c_int32), ("value", c_float)]


class Router(Struct):
    """``tm_router``."""

    names = "tm_router"
    _fields_: ClassVar[Any] = [
        ("matrix", Matrix), ("bias", c_void_p), ("correction", c_void_p), ("top_k", c_int64), ("groups", c_int64),
        ("top_groups", c_int64), ("group_best", c_int64), ("scale", c_float), ("jitter", c_float), ("scoring", c_int32),
        ("normalize", c_int32),
    ]  # fmt: skip


class Experts(Struct):
    """``tm_experts``."""

    names = "tm_experts"
    _fields_: ClassVar[Any] = [
        ("gate_up", POINTER(Matrix)), ("down", POINTER(Matrix)), ("gate_up_bias", c_void_p), ("down_bias", c_void_p),
        ("experts", c_int64), ("gate_up_parts", c_int32), ("bias_dtype", c_int32), ("gate", c_int32),
        ("alpha", c_float), ("limit", c_float),
    ]  # fmt: skip


class LatentWrite(Struct):
    """``tm_latent_write``."""

    names = "tm_latent_write"
    _fields_: ClassVar[Any] = [("cache", Cache)]


class AttendLatent(Struct):
    """``tm_attend_latent``."""

    names = "tm_attend_latent"
    _fields_: ClassVar[Any] = [
        ("attend", Attend), ("keys", POINTER(Matrix)), ("values", POINTER(Matrix)), ("q_apart", c_int64),
        ("turned_apart", c_int64),
    ]  # fmt: skip


class State(Struct):
    """``tm_state``."""

    names = "tm_state"
    _fields_: ClassVar[Any] = [("data", c_void_p), ("slot_stride", c_int64), ("dtype", c_int32)]


class CausalConv(Struct):
    """``tm_causal_conv``."""

    names = "tm_causal_conv"
    _fields_: ClassVar[Any] = [("state", State), ("weight", c_void_p), ("width", c_int64), ("activation", c_int32)]


class GatedDelta(Struct):
    """``tm_gated_delta``."""

    names = "tm_gated_delta"
    _fields_: ClassVar[Any] = [
        ("state", State), ("rate", c_void_p), ("shift", c_void_p), ("key_heads", c_int64), ("value_heads", c_int64),
        ("key_dim", c_int64), ("value_dim", c_int64),
    ]  # fmt: skip


class Quantize(Struct):
    """``tm_quantize``."""

    names = "tm_quantize"
    _fields_: ClassVar[Any] = [
        ("rows", c_void_p), ("importance", c_void_p), ("to", c_void_p), ("scale", c_void_p), ("zero", c_void_p),
        ("table", c_void_p), ("stride", c_int64), ("importance_stride", c_int64), ("to_stride", c_int64),
        ("outputs", c_int64), ("inputs", c_int64), ("group", c_int64), ("rule", c_int32), ("dtype", c_int32),
        ("bits", c_int32), ("scale_dtype", c_int32),
    ]  # fmt: skip


class Draw(Struct):
    """``tm_draw``."""

    names = "tm_draw"
    _fields_: ClassVar[Any] = [
        ("logits", c_void_p), ("stride", c_int64), ("rows", c_int64), ("vocab", c_int64), ("temperature", c_void_p),
        ("top_k", c_void_p), ("top_p", c_void_p), ("min_p", c_void_p), ("uniform", c_void_p), ("tokens", c_void_p),
        ("peaks", c_void_p), ("path", c_int64),
    ]  # fmt: skip


STRUCTS: tuple[type[Struct], ...] = (
    Value, Node, Group, Step, Matrix, Codes, Plane, Cache, Embed, Linear, Norm, RopeAngles, Rotate, RotateWrite,
    CacheWrite, Attend, Pointwise, Router, Experts, LatentWrite, AttendLatent, State, CausalConv, GatedDelta,
    Quantize, Draw,
)  # fmt: skip
