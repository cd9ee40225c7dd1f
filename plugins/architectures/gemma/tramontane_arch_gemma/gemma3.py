# SPDX-License-Identifier: Apache-2.0
"""Gemma 3, text (Gemma Team, 2025): five windowed layers to a full one, a rope for each kind, norms instead of caps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen

from tramontane.config import RopeConfig, derived, read_rope, rope_field
from tramontane_arch_gemma.gemma2 import Gemma2Config


def _window_rope(config: Mapping[str, Any], where: str) -> RopeConfig:
    """Rope of windowed layers: stated for their type, or (older files) unscaled with a base of its own."""
    if isinstance((config.get("rope_parameters") or {}).get("sliding_attention"), Mapping):
        return read_rope(config, where, layer_type="sliding_attention")
    return RopeConfig(theta=float(config.get("rope_local_base_freq") or 10_000.0))


@frozen(kw_only=True)
class Gemma3Config(Gemma2Config):
    """What ``config.json`` says."""

    qk_norm: ClassVar[bool] = True

    sliding_window_pattern: int = 6
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    rope: RopeConfig = rope_field("full_attention", theta=1_000_000.0)
    window_rope: RopeConfig = derived(_window_rope)

    def windowed(self, layer: int) -> bool:
        """See :meth:`Gemma2Config.windowed`."""
        if self.layer_types is not None:
            return self.layer_types[layer] == "sliding_attention"
        return (layer + 1) % self.sliding_window_pattern != 0

    def rope_of(self, layer: int) -> RopeConfig:
        """See :meth:`Gemma2Config.rope_of`."""
        return self.window_rope if self.windowed(layer) else self.rope
