# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about its GPTQ weights, in the spellings of AutoGPTQ, GPTQModel and AutoRound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.config import name_pattern, only, quantization_config, read_config, renamed
from tramontane.errors import ConfigError

FILE = "quantize_config.json"
"""Where AutoGPTQ wrote its settings before they moved into ``config.json``."""
AUTOROUND = ("auto-round", "auto_round", "autoround", "intel/auto-round")
PACKINGS = {
    "auto_round:auto_gptq": "gptq",
    "auto_round:gptq": "gptq",
    "auto_round:exllamav2": "gptq",
    "auto_round": "gptq_v2",
    "auto_round:gptqmodel": "gptq_v2",
}
"""AutoRound's name of a packing -> GPTQ's name of the same."""
SKIPS = {"-": True, "+": False}
"""What the sign before the colon of a rule says: whether its modules were left as they are."""


@frozen(kw_only=True)
class Settings:
    """How the modules of a checkpoint are packed."""

    bits: int = renamed("bits", "wbits", "w_bit")
    group_size: int = 128
    """Inputs per group; -1 is one group per output."""
    desc_act: bool = False
    """Groups are of inputs in the order of their importance, so that the group of each is stored."""
    sym: bool = True
    """All zero points are the middle code."""
    checkpoint_format: str = renamed("checkpoint_format", "format", default="gptq")
    pack_dtype: str = "int32"
    act_bits: int = 16
    dynamic: Mapping[str, Any] | None = None
    """GPTQModel's rules: pattern -> settings of the modules it matches from the start of their names."""
    extra_config: Mapping[str, Any] | None = None
    """AutoRound's rules: name or pattern -> settings."""
    rotation_config: Mapping[str, Any] | None = only(None, {})

    def __attrs_post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise ConfigError(f"GPTQ weights of {self.bits} bits are not supported (2, 3, 4 and 8 are)")
        if self.group_size < 1 and self.group_size != -1:
            raise ConfigError(f"group_size must be -1 or above 0, not {self.group_size}")
        if self.checkpoint_format not in ("gptq", "gptq_v2"):
            raise ConfigError(f"the GPTQ layout {self.checkpoint_format!r} is not supported (gptq and gptq_v2 are)")
        if self.pack_dtype.removeprefix("torch.") != "int32":
            raise ConfigError(f"GPTQ weights packed into {self.pack_dtype} are not supported (int32 is)")
        if self.act_bits < 16:
            raise ConfigError(f"activations of {self.act_bits} bits are not supported with GPTQ weights")

    def of_module(self, name: str) -> Settings:
        """The settings of a module, by its name in the checkpoint."""
        if self.dynamic:
            for rule, changes in self.dynamic.items():
                sign, colon, pattern = rule.partition(":")
                skips = SKIPS.get(sign) if colon else None
                if name_pattern(rule if skips is None else pattern).match(name):
                    return self if skips else self._changed(changes, rule)
        if self.extra_config:
            if name in self.extra_config:
                return self._changed(self.extra_config[name], name)
            for rule, changes in self.extra_config.items():
                if not rule.replace("_", "").replace(".", "").isalnum() and name_pattern(rule).fullmatch(name):
                    return self._changed(changes, rule)
        return self

    def _changed(self, changes: Any, rule: str) -> Settings:
        if not isinstance(changes, Mapping):
            raise ConfigError(f"the rule {rule!r} must give settings, not {changes!r:.80}")
        kept = {"bits": self.bits, "group_size": self.group_size, "desc_act": self.desc_act, "sym": self.sym}
        new = read_config(Settings, {**kept, **{k: v for k, v in changes.items() if k in kept}}, f"the rule {rule!r}")
        return evolve(new, checkpoint_format=self.checkpoint_format)


def find_settings(checkpoint: Checkpoint) -> Settings | None:
    """The settings of a checkpoint with GPTQ weights; ``None`` for any other.

    Raises:
        ConfigError: They say something that is not supported.
    """
    stated, where = quantization_config(checkpoint.config), "quantization_config"
    if stated is None:
        stated, where = checkpoint.files.json(FILE), FILE
        if stated is None or stated.get("quant_method", "gptq") != "gptq":
            return None
    method = str(stated.get("quant_method", "gptq" if where == FILE else "")).lower()
    if method in AUTOROUND:
        packing = str(stated.get("packing_format", "auto_round:auto_gptq"))
        if "awq" in packing:
            return None
        if packing not in PACKINGS:
            raise ConfigError(f"AutoRound's packing {packing!r} is not supported ({', '.join(PACKINGS)} are)")
        stated = {**stated, "checkpoint_format": PACKINGS[packing]}
    elif method != "gptq":
        return None
    return read_config(Settings, stated, f"{checkpoint.path}: {where}")
