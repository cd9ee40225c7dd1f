# SPDX-License-Identifier: Apache-2.0
"""What is common to all Hugging Face configurations: element type, nested text configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tramontane.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float64", "float32", "float16", "bfloat16")
_SHORT = {"float": "float32", "half": "float16", "double": "float64", "fp32": "float32", "fp16": "float16"}
_SHORT |= {"bf16": "bfloat16", "f32": "float32", "f16": "float16", "f64": "float64"}
#: Where multimodal checkpoints keep the language model's configuration.
_NESTED = ("text_config", "llm_config", "language_config")
#: Keys that hold for the whole checkpoint and may be stated outside the nested configuration only.
_SHARED = (
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
    "tie_word_embeddings",
    "torch_dtype",
)


def parse_dtype(name: str) -> torch.dtype:
    """A floating-point element type by name: ``bfloat16``, ``torch.bfloat16`` or ``bf16``.

    Raises:
        ConfigError: There is no such type.
    """
    import torch

    plain = name.removeprefix("torch.").lower()
    found = getattr(torch, _SHORT.get(plain, plain), None) if _SHORT.get(plain, plain) in DTYPES else None
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"there is no weight type {name!r}", hint=f"known types: {', '.join(DTYPES)}")
    return found


def read_dtype(config: Mapping[str, Any]) -> torch.dtype | None:
    """Element type that a configuration states (``dtype`` or ``torch_dtype``); ``None`` if it states none or ``auto``.

    Raises:
        ConfigError: It states a type that does not exist.
    """
    name = config.get("dtype") or config.get("torch_dtype")
    if name is None or name == "auto":
        return None
    if not isinstance(name, str):
        raise ConfigError(f"the configuration's dtype must be a name, not {name!r}")
    return parse_dtype(name)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's configuration of a multimodal checkpoint; the configuration itself where nothing is nested.

    Keys that hold for the whole checkpoint are taken from outside where the nested object does not state them.
    """
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, Mapping):
            outer = {shared: config[shared] for shared in _SHARED if shared in config}
            return MappingProxyType({**outer, **{k: v for k, v in nested.items() if v is not None or k not in outer}})
    return config


def quantization_config(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a configuration says its weights are quantized; ``None`` if it says nothing.

    Raises:
        ConfigError: What it says is no object.
    """
    found = text_config(config).get("quantization_config")
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"the configuration's quantization_config must be an object, not {found!r:.80}")
    return found
