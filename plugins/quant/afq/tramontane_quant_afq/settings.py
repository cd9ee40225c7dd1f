# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about weights that MLX quantized: bits, group, mode, and what differs for single modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config, read_config
from tramontane.errors import ConfigError

WIDTHS = {"affine": (1, 2, 3, 4, 5, 6, 8), "mxfp4": (4,), "nvfp4": (4,), "mxfp8": (8,)}
"""Mode -> bits that it has."""
GROUPS = {"mxfp4": 32, "nvfp4": 16, "mxfp8": 32}
"""Mode -> the one group size that it has."""


@frozen(kw_only=True)
class Settings:
    """How modules are packed."""

    bits: int
    group_size: int
    """Inputs per group."""
    mode: str = "affine"
    modules: Mapping[str, Any] = field(factory=dict)
    """Name of a module in the checkpoint -> what differs there."""

    def __attrs_post_init__(self) -> None:
        if self.mode not in WIDTHS:
            raise ConfigError(f"MLX's mode {self.mode!r} is not supported ({', '.join(WIDTHS)} are)")
        if self.bits not in WIDTHS[self.mode]:
            raise ConfigError(f"{self.mode} weights of {self.bits} bits are not supported")
        if self.group_size < 1 or self.group_size != GROUPS.get(self.mode, self.group_size):
            raise ConfigError(f"{self.mode} weights with groups of {self.group_size} are not supported")

    def of_module(self, name: str) -> Settings:
        """The settings of a module, by its name in the checkpoint."""
        changes = self.modules.get(name)
        if not isinstance(changes, Mapping):
            return self
        mode = changes.get("mode", self.mode)
        kept = {"bits": self.bits, "group_size": self.group_size}
        return read_config(Settings, {**kept, **changes, "mode": mode}, f"the quantization of {name}")


def find_settings(checkpoint: Checkpoint) -> Settings | None:
    """The settings of a checkpoint that MLX wrote; ``None`` for any other.

    Raises:
        ConfigError: They say something that is not supported.
    """
    stated = checkpoint.config.get("quantization")
    if not isinstance(stated, Mapping):
        stated = quantization_config(checkpoint.config) or {}
        if stated.get("quant_method", "afq") != "afq":
            return None
    if "bits" not in stated or "group_size" not in stated:
        return None
    modules = {name: value for name, value in stated.items() if isinstance(value, Mapping | bool)}
    plain = {name: value for name, value in stated.items() if name not in modules and name != "modules"}
    return evolve(read_config(Settings, plain, f"{checkpoint.path}: quantization"), modules=modules)
