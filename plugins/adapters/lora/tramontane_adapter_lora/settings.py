# SPDX-License-Identifier: Apache-2.0
"""``adapter_config.json`` of PEFT: what it says of ranks and scales, and what cannot be served.

The meaning of every key is that of ``peft.LoraConfig``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

from attrs import field, frozen

from tramontane.config import read_config
from tramontane.errors import AdapterError
from tramontane_adapter_lora.patterns import find_pattern

_log = logging.getLogger(__name__)

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways of initializing after which the adapter belongs to a base that training changed."""
_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA (use_dora), which scales the base model's own weights",
    "lora_bias": "biases of its own (lora_bias)",
    "use_qalora": "QALoRA (use_qalora)",
    "use_bdlora": "block-diagonal LoRA (use_bdlora)",
    "layer_replication": "replicated layers (layer_replication)",
    "target_parameters": "parameters that are no modules, stacked experts mostly (target_parameters)",
    "trainable_token_indices": "trained token embeddings (trainable_token_indices)",
    "alora_invocation_tokens": "activation by tokens (alora_invocation_tokens)",
    "arrow_config": "Arrow routing (arrow_config)",
    "modules_to_save": "whole modules (modules_to_save)",
}
"""Key -> what it means where it is set; none of these can be served."""
_KNOWN = frozenset(
    (
        "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
        "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
        "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config",
        "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "alpha_pattern",
        "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
    )
)  # fmt: skip
"""Keys that are read, or that matter to training only."""


@frozen(kw_only=True)
class PeftSettings:
    """The keys that an adapter's numbers depend on."""

    peft_type: str
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    bias: str = "none"
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    init_lora_weights: Any = True
    base_model_name_or_path: str | None = None
    where: str = field(default="adapter_config.json", init=False)

    def rank(self, module: str) -> int:
        """The rank that a module must have."""
        return int(find_pattern(self.rank_pattern or {}, module, self.r))

    def scale(self, module: str) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` where ranks are stabilized (rsLoRA; Kalajdzievski, 2023)."""
        alpha, rank = float(find_pattern(self.alpha_pattern or {}, module, self.lora_alpha)), self.rank(module)
        return alpha / (sqrt(rank) if self.use_rslora else rank)


def read_settings(config: Mapping[str, Any], where: str) -> PeftSettings:
    """Read the file's content.

    Raises:
        ConfigError: Keys are missing or of the wrong type.
        AdapterError: It asks for what cannot be served; everything is named.
    """
    settings = read_config(PeftSettings, config, where)
    wrong = list(_unsupported(settings, config))
    if wrong:
        raise AdapterError(
            f"{where} asks for what is not supported: {'; '.join(wrong)}",
            hint="merge the adapter into its base model, or train a plain LoRA; docs/adapters.md has the list",
        )
    unknown = sorted(key for key, value in config.items() if value and key not in _KNOWN and key not in _REFUSED)
    if unknown:
        _log.warning("%s has keys that are not known here and are left out: %s", where, ", ".join(unknown))
    return settings


def _unsupported(settings: PeftSettings, config: Mapping[str, Any]) -> Iterator[str]:
    if settings.peft_type != "LORA":
        yield f"the kind {settings.peft_type} (peft_type)"
    if settings.bias != "none":
        yield f"trained biases of the base model (bias {settings.bias!r})"
    how = settings.init_lora_weights
    if isinstance(how, str) and how.lower().startswith(_CHANGES_BASE):
        yield f"a base model changed while the adapter was made (init_lora_weights {how!r})"
    yield from (meaning for key, meaning in _REFUSED.items() if config.get(key))
    if settings.r < 1 or any(rank < 1 for rank in (settings.rank_pattern or {}).values()):
        yield "a rank below 1"
