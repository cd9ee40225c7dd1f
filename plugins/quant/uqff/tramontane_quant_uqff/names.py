# SPDX-License-Identifier: Apache-2.0
"""Numbers and names of the format, as mistral.rs defines them (``mistralrs-quant/src/uqff`` and
``docs/reference/uqff-format``)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

import torch

SUFFIX = ".uqff"
RESIDUAL = "residual.safetensors"
"""Tensors that no layer holds: norms, routers."""
REPORT = "uqff_report.json"
WRITTEN = (1, 2, 0)
"""The version that is written, and the last whose files are known."""
NUMBERED = (0, 2, 0)
"""The last version of the files whose layers are numbered blobs, which is written too."""
VERSION_KEYS = ("uqff.version.major", "uqff.version.minor", "uqff.version.patch")
FORMAT = "weight.format"
"""The field that says the kind of a layer; what describes or scales the weight is named ``weight.<what>`` too."""


class Kind(IntEnum):
    """What a layer is; the number is stored."""

    GGML = 0
    UNQUANT = 1
    HQQ = 2
    FP8 = 3
    AFQ = 4
    F8Q8 = 5
    MXFP4 = 6


DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        0: torch.uint8,
        1: torch.uint32,
        2: torch.int32,
        3: torch.int64,
        4: torch.float16,
        5: torch.bfloat16,
        6: torch.float32,
        7: torch.float64,
        8: torch.int16,
        9: torch.float8_e4m3fn,
        13: torch.float8_e8m0fnu,
    }
)
"""Element types by their number."""
E4M3 = 9
