# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of compressed-tensors says: groups of modules, and how the weights and inputs of each are coded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.config import Size, name_pattern, only, quantization_config, read_config
from tramontane.errors import ConfigError, PlanError

_log = logging.getLogger(__name__)

METHODS = ("compressed-tensors", "compressed_tensors")
LAYOUTS = (
    "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision",
)  # fmt: skip
"""Layouts that are read; which one a module has is told by its tensors."""


@frozen(kw_only=True)
class Args:
    """How one tensor is quantized."""

    num_bits: int = 8
    type: Literal["int", "float"] = "int"
    symmetric: bool = True
    strategy: Literal["tensor", "channel", "group", "block", "token", "tensor_group", "attn_head"] | None = None
    group_size: int | None = None
    block_structure: tuple[Size, ...] | str | None = None
    dynamic: bool | str = False
    actorder: bool | str | None = None

    @property
    def kind(self) -> str:
        """The strategy, or the one that the group size implies."""
        if self.strategy is not None:
            return self.strategy
        return "tensor" if self.group_size is None else "channel" if self.group_size == -1 else "group"

    @property
    def block(self) -> tuple[int, int]:
        """Outputs and inputs per scale.

        Raises:
            ConfigError: They are not two numbers.
        """
        stated = self.block_structure
        sizes = [int(one) if one.isdecimal() else 0 for one in stated.split("x")] if isinstance(stated, str) else stated
        if sizes is None or len(sizes) != 2 or min(sizes) < 1:
            raise ConfigError(f"block_structure must be two numbers, not {stated!r}")
        return sizes[0], sizes[1]

    @property
    def has_order(self) -> bool:
        """Whether the group of each input is stored."""
        return self.actorder is True or self.actorder in ("group", "dynamic")


@frozen(kw_only=True)
class Group:
    """Modules that are quantized alike."""

    targets: tuple[str, ...] = ()
    weights: Args | None = None
    input_activations: Args | None = None
    format: str | None = None

    def matches(self, module: str) -> int:
        """How closely a module is meant: 3 by its name, 2 by a pattern, 1 by a class of modules, 0 not at all."""
        patterns = [target.removeprefix("re:") for target in self.targets if target.startswith("re:")]
        if module in self.targets:
            return 3
        if any(name_pattern(pattern).match(module) for pattern in patterns):
            return 2
        return int(any(target[:1].isupper() and "." not in target for target in self.targets))


@frozen(kw_only=True)
class Settings:
    """What the whole checkpoint says."""

    config_groups: Mapping[str, Group] = field(factory=dict)
    format: str = "pack-quantized"
    sparsity_config: Mapping[str, Any] | None = None
    transform_config: Mapping[str, Any] | None = only(None, {})

    def __attrs_post_init__(self) -> None:
        sparse = (self.sparsity_config or {}).get("format", "dense")
        wanted = [self.format, *(group.format for group in self.config_groups.values() if group.format), sparse]
        unknown = sorted({one for one in wanted if one not in (*LAYOUTS, "dense")})
        if unknown:
            raise ConfigError(f"the layout {' and '.join(unknown)} is not supported ({', '.join(LAYOUTS)} are)")

    def group_of(self, module: str) -> Group:
        """The group of a module, by its name in the checkpoint.

        Raises:
            PlanError: It is in none.
        """
        groups = list(self.config_groups.values())
        best = max(groups, key=lambda group: group.matches(module), default=None)
        if best is None or (not best.matches(module) and len(groups) > 1) or best.weights is None:
            raise PlanError(f"{module} is quantized, but no group of the quantization_config says how")
        return best


def find_settings(checkpoint: Checkpoint) -> Settings | None:
    """The settings of a checkpoint of compressed-tensors; ``None`` for any other.

    Raises:
        ConfigError: They say something that is not supported.
    """
    stated = quantization_config(checkpoint.config)
    if stated is None or str(stated.get("quant_method", "")).lower() not in METHODS:
        return None
    if stated.get("kv_cache_scheme"):
        _log.info("%s: scales of the key/value cache are not used; --kv-dtype chooses its type", checkpoint.path)
    return read_config(Settings, stated, f"{checkpoint.path}: quantization_config")
