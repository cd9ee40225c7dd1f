# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: text to ids and back, at once (:class:`Tokenizer`) and as it grows (:class:`Detokenizer`)."""

from __future__ import annotations

from tramontane.tokenizer.detokenize import Detokenizer
from tramontane.tokenizer.tokenizer import Tokenizer, open_backend

__all__ = ["Detokenizer", "Tokenizer", "open_backend"]
