# SPDX-License-Identifier: Apache-2.0
"""Opening what PEFT saves: ``adapter_config.json`` beside ``adapter_model.safetensors``.

Tensors are called ``base_model.model.<module>.lora_A.weight`` [R, I] and ``.lora_B.weight`` [O, R]. A name of the
adapter between (``lora_A.default.weight``) is what unfinished saves have, and means the same.
"""

from __future__ import annotations

import re
from pathlib import Path

from tramontane.adapters import Adapter
from tramontane.checkpoint import OpenOptions
from tramontane_adapter_lora.folder import CONFIG, folder_of, open_pairs, peek, read
from tramontane_adapter_lora.pairs import Pairs
from tramontane_adapter_lora.settings import read_settings

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+?)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight")


def detect(path: Path) -> bool:
    """Whether PEFT wrote this: a folder with its configuration or its weights, or a file in such a folder. A kind of
    adapter that is not LoRA is taken too, to be refused by name; X-LoRA is not, which is a kind of its own."""
    config, folder = peek(path), folder_of(path)
    if config:
        return "peft_type" in config and config["peft_type"] != "XLORA"
    return config is not None or any((folder / name).is_file() for name in (WEIGHTS, PICKLE))


def open_adapter(path: Path, options: OpenOptions) -> Adapter:
    """Open an adapter's folder. Reads names, shapes and settings.

    Raises:
        AdapterError: Files are missing, damaged, or hold what is not supported.
        ConfigError: The configuration has missing or wrong keys.
        UnsafeFormatError: The weights exist as pickle only, which is never loaded.
        CheckpointError: The weight file is damaged or hostile.
    """
    folder = folder_of(path)
    settings = read_settings(read(folder), str(folder / CONFIG))
    pairs = Pairs(str(folder / WEIGHTS), _NAME, settings.rank, settings.scale)
    return open_pairs("lora", folder, WEIGHTS, PICKLE, pairs, settings.base_model_name_or_path)
