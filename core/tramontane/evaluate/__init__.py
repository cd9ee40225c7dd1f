# SPDX-License-Identifier: Apache-2.0
"""How good a model is at a text, and how far one model's predictions are from another's. It loads no model itself."""

from __future__ import annotations

from tramontane.evaluate.divergence import Divergence, DivergenceMeter
from tramontane.evaluate.perplexity import Perplexity, PerplexityMeter, chunks

__all__ = ["Divergence", "DivergenceMeter", "Perplexity", "PerplexityMeter", "chunks"]
