# SPDX-License-Identifier: Apache-2.0
"""From a vocabulary in metadata to the files a tokenizer is made of: ``tokenizer.json`` and what names its tokens.

Nothing is decided here that the file does not say; what a prompt looks like is the chat template's business.
"""

from __future__ import annotations

from tramontane_quant_gguf.vocabulary.files import files_of

__all__ = ["files_of"]
