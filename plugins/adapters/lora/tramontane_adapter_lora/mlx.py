# SPDX-License-Identifier: Apache-2.0
"""Opening what MLX-LM saves: ``adapter_config.json`` beside ``adapters.safetensors``.

Tensors are called ``<module>.lora_a`` [I, R] and ``.lora_b`` [R, O], and the scale is stated. Versions of early 2024
had an ``alpha`` too; there the scale was ``scale * alpha / rank``.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen

from tramontane.adapters import Adapter
from tramontane.checkpoint import OpenOptions
from tramontane.config import Size, read_config
from tramontane.errors import AdapterError
from tramontane_adapter_lora.folder import CONFIG, folder_of, open_pairs, peek, read
from tramontane_adapter_lora.pairs import Pairs

WEIGHTS = "adapters.safetensors"
_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<side>[ab])")


@frozen(kw_only=True)
class _Parameters:
    rank: Size
    scale: float
    alpha: float | None = None


@frozen(kw_only=True)
class _Settings:
    lora_parameters: _Parameters
    fine_tune_type: str = "lora"
    model: str | None = None
    use_dora: bool = False


def detect(path: Path) -> bool:
    """Whether MLX-LM wrote this."""
    config = peek(path)
    return bool(config) and "peft_type" not in config and ("lora_parameters" in config or "fine_tune_type" in config)


def open_adapter(path: Path, options: OpenOptions) -> Adapter:
    """Open an adapter's folder.

    Raises:
        AdapterError: Files are missing, damaged, or hold what is not supported.
        ConfigError: The configuration has missing or wrong keys.
        CheckpointError: The weight file is damaged or hostile.
    """
    folder = folder_of(path)
    settings = read_config(_Settings, read(folder), str(folder / CONFIG))
    if settings.use_dora or settings.fine_tune_type != "lora":
        kind = "dora" if settings.use_dora else settings.fine_tune_type
        raise AdapterError(
            f"{folder / CONFIG} is of the kind {kind!r} (fine_tune_type)", hint="only plain LoRA can be loaded"
        )
    told = settings.lora_parameters
    scale = told.scale if told.alpha is None else told.scale * told.alpha / told.rank
    pairs = Pairs(str(folder / WEIGHTS), _NAME, lambda _: told.rank, lambda _: scale, transposed=True)
    return open_pairs("mlx-lora", folder, WEIGHTS, None, pairs, settings.model)
