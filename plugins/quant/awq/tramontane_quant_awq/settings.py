# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about its AWQ weights, in the spellings of AutoAWQ, GPTQModel and AutoRound."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config, read_config, renamed
from tramontane.errors import ConfigError
from tramontane_quant_awq.packing import IN_ORDER, PLACES

FILE = "quant_config.json"
"""Where AutoAWQ wrote its settings before they moved into ``config.json``."""
AUTOROUND = ("auto-round", "auto_round", "autoround", "intel/auto-round")


@frozen(kw_only=True)
class Settings:
    """How all modules of a checkpoint are packed."""

    bits: int = renamed("bits", "w_bit")
    group_size: int = renamed("group_size", "q_group_size", default=128)
    """Inputs per group; -1 is one group per output."""
    layout: str = renamed("version", "format", "checkpoint_format", default="gemm")
    pack_dtype: str = "int32"
    act_bits: int = 16
    meta: dict[str, Any] = field(factory=dict)
    """What the writer says of itself."""

    @property
    def places(self) -> tuple[int, ...]:
        """Where in its word the code of each output stands."""
        writer = str(self.meta.get("quantizer", "")).lower()
        return IN_ORDER if self.bits == 8 and "gptqmodel" in writer else PLACES[self.bits]

    def __attrs_post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError(f"AWQ weights of {self.bits} bits are not supported (4 and 8 are)")
        if self.group_size < 1 and self.group_size != -1:
            raise ConfigError(f"group_size must be -1 or above 0, not {self.group_size}")
        if self.layout.lower() != "gemm":
            raise ConfigError(f"the AWQ layout {self.layout!r} is not supported (gemm is)")
        if self.pack_dtype.removeprefix("torch.") != "int32":
            raise ConfigError(f"AWQ weights packed into {self.pack_dtype} are not supported (int32 is)")
        if self.act_bits < 16:
            raise ConfigError(f"activations of {self.act_bits} bits are not supported with AWQ weights")


def find_settings(checkpoint: Checkpoint) -> Settings | None:
    """The settings of a checkpoint with AWQ weights; ``None`` for any other.

    Raises:
        ConfigError: They say something that is not supported.
    """
    stated, where = quantization_config(checkpoint.config), "quantization_config"
    if stated is None:
        stated, where = checkpoint.files.json(FILE), FILE
        if stated is None or "w_bit" not in stated:
            return None
    method = str(stated.get("quant_method", "awq" if where == FILE else "")).lower()
    if method in AUTOROUND and "awq" in str(stated.get("packing_format", "")):
        stated = {**stated, "version": "gemm"}
    elif method != "awq":
        return None
    return read_config(Settings, stated, f"{checkpoint.path}: {where}")
