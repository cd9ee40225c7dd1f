# SPDX-License-Identifier: Apache-2.0
"""Parsing of files: headers, metadata and where tensors lie. Everything in a file is taken for what a stranger wrote.

Nothing here knows what tensors or settings mean, and no tensor data is read.
"""

from __future__ import annotations

from tramontane_quant_gguf.reading.header import Entry, Header
from tramontane_quant_gguf.reading.parse import parse_header
from tramontane_quant_gguf.reading.values import Metadata, Strings

__all__ = ["Entry", "Header", "Metadata", "Strings", "parse_header"]
