# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about its FP8 and NVFP4 weights.

Three families of writers: ``quant_method: fp8`` (DeepSeek and those who follow), ``fbgemm_fp8`` (Meta), and NVIDIA's
Model Optimizer, whose settings are in ``config.json`` or in ``hf_quant_config.json`` beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from tramontane.checkpoint import Checkpoint
from tramontane.config import Size, quantization_config, read_config
from tramontane.errors import ConfigError

_log = logging.getLogger(__name__)

FILE = "hf_quant_config.json"
ALGORITHMS = ("FP8", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A16_NVFP4")
"""Model Optimizer's algorithms that are read."""


@frozen(kw_only=True)
class Settings:
    """How the modules of a checkpoint are quantized, beyond what their tensors say."""

    weight_block_size: tuple[Size, ...] | None = None
    """Outputs and inputs per scale."""
    activation_scheme: Literal["dynamic", "static", "none"] = "dynamic"
    """Where the scales of activations come from; ``none``: activations are left alone."""

    def __attrs_post_init__(self) -> None:
        if self.weight_block_size is not None and len(self.weight_block_size) != 2:
            raise ConfigError(f"weight_block_size must be two numbers, not {list(self.weight_block_size)}")

    @property
    def block(self) -> tuple[int, int] | None:
        """Outputs and inputs per scale."""
        return None if self.weight_block_size is None else (self.weight_block_size[0], self.weight_block_size[1])


def find_settings(checkpoint: Checkpoint) -> Settings | None:
    """The settings of a checkpoint with FP8 or NVFP4 weights; ``None`` for any other.

    Raises:
        ConfigError: They say something that is not supported.
    """
    stated, where = quantization_config(checkpoint.config), "quantization_config"
    if stated is None:
        stated, where = (checkpoint.files.json(FILE) or {}).get("quantization"), FILE
    if not isinstance(stated, Mapping):
        return None
    where = f"{checkpoint.path}: {where}"
    method = stated.get("quant_method")
    if stated.get("quant_algo") is not None and method in (None, "modelopt", "fp8"):
        return _of_model_optimizer(stated, where)
    if method == "fbgemm_fp8":
        return Settings()
    return read_config(Settings, stated, where) if method == "fp8" else None


def _of_model_optimizer(stated: Mapping[str, Any], where: str) -> Settings:
    """Which modules are quantized how is in their tensors; the algorithm says what to do with activations."""
    algorithm, layers = stated["quant_algo"], stated.get("quantized_layers")
    if algorithm == "MIXED_PRECISION" and isinstance(layers, Mapping):
        found = {str(one.get("quant_algo")) for one in layers.values() if isinstance(one, Mapping)}
    else:
        found = {str(algorithm)}
    unknown = sorted(found - set(ALGORITHMS))
    if unknown:
        raise ConfigError(
            f"{where}: Model Optimizer's {' and '.join(unknown)} is not supported ({', '.join(ALGORITHMS)} are)"
        )
    if stated.get("kv_cache_quant_algo") or stated.get("kv_cache_scheme"):
        _log.info("%s: scales of the key/value cache are not used; --kv-dtype chooses its type", where)
    scheme = "none" if found == {"FP8_PB_WO"} else "dynamic" if found == {"FP8_PER_CHANNEL_PER_TOKEN"} else "static"
    block = stated.get("weight_block_size", [128, 128] if "FP8_PB_WO" in found else None)
    return read_config(Settings, {"weight_block_size": block, "activation_scheme": scheme}, where)
