# SPDX-License-Identifier: Apache-2.0
"""Writing GGUF: the container, and what of a loaded model goes into it."""

from __future__ import annotations

from tramontane_quant_gguf.writing.container import OutTensor, write_file

__all__ = ["OutTensor", "write_file"]
