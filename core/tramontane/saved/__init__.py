# SPDX-License-Identifier: Apache-2.0
"""Models saved as this project keeps them: canonical fields under the model's own names, in safetensors files.

Such a checkpoint loads back mapped, without any packing, and computes bit for bit what was saved. The files describe
themselves in their metadata; see :mod:`tramontane.saved.description`.
"""

from __future__ import annotations

from tramontane.saved.description import Description
from tramontane.saved.format import SavedFormat
from tramontane.saved.write import save_plan

__all__ = ["Description", "SavedFormat", "save_plan"]
