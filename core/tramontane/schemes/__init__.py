# SPDX-License-Identifier: Apache-2.0
"""Weight schemes: the few ways a weight is stored once it is loaded, with reference pack and unpack.

Formats (GGUF, GPTQ, AWQ, ...) are translated into these once; models, adapters, sharding and kernels know only these.
Nothing here is fast or tied to a device.
"""

from __future__ import annotations

from tramontane.schemes.affine import Affine
from tramontane.schemes.base import NO_ACT, Act, Field, Fields, Scheme, Shape, sliced_shape
from tramontane.schemes.codebook import Codebook
from tramontane.schemes.dense import Dense
from tramontane.schemes.float8 import Float8
from tramontane.schemes.ggml import BlockCodec, Ggml
from tramontane.schemes.micro import Micro

__all__ = [
    "NO_ACT",
    "Act",
    "Affine",
    "BlockCodec",
    "Codebook",
    "Dense",
    "Field",
    "Fields",
    "Float8",
    "Ggml",
    "Micro",
    "Scheme",
    "Shape",
    "sliced_shape",
]
