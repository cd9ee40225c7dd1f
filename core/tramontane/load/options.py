# SPDX-License-Identifier: Apache-2.0
"""How a model is to be loaded: one frozen record, fields named like the command line's options."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from tramontane.engine import EngineConfig


@frozen(kw_only=True)
class LoadOptions:
    """How to load a model. Everything has a sensible default; names equal the command line's."""

    revision: str | None = None
    token_source: str = "cache"
    offline: bool | None = None
    allow_pickle: bool = False
    arch: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    chat_format: str | None = None
    """How the model writes reasoning and tool calls, where its template does not tell."""
    device: str = "auto"
    backend: str = "auto"
    device_map: str | None = None
    """How layers are spread over devices: see :mod:`tramontane.load.places`."""
    dtype: str = "auto"
    quant: str | None = None
    """Type to quantize to, or stored format to insist on."""
    organization: str = "default"
    """Which matrices are quantized: ``default`` all, ``moqe`` those of experts."""
    adapters: Mapping[str, str] = field(factory=dict)
    """Name -> path or hub id of the adapters that requests may choose."""
    max_adapters: int = 16
    """Most adapters that are loaded at a time."""
    topology: str | None = None
    """File with type and device per layer."""
    activations: str = "stored"
    """What the checkpoint's rules for activations do: ``stored`` follows them, ``exact`` leaves activations alone."""
    imatrix: str | None = None
    """File of importances that quantizing weighs by."""
    calibrate: str | None = None
    """Text that importances are collected from before quantizing."""
    weights_cache: str | None = None
    """Folder that keeps weights as the backend laid them out, for the next start: see :mod:`tramontane.load.kept`."""
    kv_dtype: str = "auto"
    """What entries of the cache are made of: see :func:`tramontane.cache.entries.parse_cache_dtype`. ``auto`` is the
    activations' type, or float16 where those are float32 unasked and most weights are narrower."""
    kv_memory: int | None = None
    """Bytes for the cache."""
    max_model_len: int | None = None
    threads: int | None = None
    tensor_parallel: int = 1
    """Workers that share the model, each on a device of its own."""
    expert_parallel: bool = False
    """Of several workers each holds some experts whole, instead of a part of each."""
    capture: bool | None = None
    """Record the step as a tape: ``None`` tries and falls back with a message, ``True`` insists, ``False`` never."""
    engine: EngineConfig = field(factory=EngineConfig)
