# SPDX-License-Identifier: Apache-2.0
"""The keyword arguments of ``LLM(...)`` and of requests, and how the former become the records that loading takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from tramontane.load import LoadOptions


class ModelSettings(TypedDict, total=False):
    """Everything ``LLM`` takes beside the model's reference; names equal the command line's.

    What is left out, or ``None``, is the engine's choice.
    """

    revision: str | None
    """Branch, tag or commit on the hub."""
    token_source: str | None
    """Where the hub token is: ``cache``, ``none``, ``env:NAME``, ``path:FILE``, ``literal:TOKEN``."""
    offline: bool | None
    """Use local files only."""
    allow_pickle: bool
    """Load weights stored as pickle, which can run code."""
    arch: str | None
    """Run the checkpoint as this architecture."""
    tokenizer: str | None
    """Another tokenizer than the model's: a folder or file."""
    chat_template: str | None
    """Another chat template than the model's: a file, or the template itself."""
    chat_format: str | None
    """How the model writes reasoning and tool calls: the name of a chat format; by default its template tells."""
    device: str | None
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` ..."""
    device_map: str | None
    """How layers are spread over devices: ``cuda:0=16,cuda:1=16``, ``cuda=24,cpu=rest`` ..."""
    backend: str | None
    """What runs the model's operations: ``auto``, ``torch``, ``reference`` ..."""
    dtype: str | None
    """``auto``, ``float32``, ``bfloat16`` or ``float16``."""
    quant: str | None
    """Stored format to pick, or type to quantize to."""
    organization: str | None
    """Which matrices are quantized: ``default`` all, ``moqe`` those of experts."""
    adapters: Mapping[str, str] | None
    """Name -> path or hub id of the adapters that requests may choose."""
    max_adapters: int | None
    """Most adapters that are loaded at a time."""
    topology: str | None
    """File with quantization and device per layer."""
    activations: str | None
    """``stored`` rounds activations where the checkpoint says so (FP8, int8), ``exact`` never does."""
    imatrix: str | None
    """File of importances (llama.cpp's imatrix) that quantizing weighs by."""
    calibrate: str | None
    """Text that importances are collected from before quantizing."""
    weights_cache: str | None
    """Folder that keeps weights as the backend laid them out: the next start maps them instead of repacking."""
    kv_dtype: str | None
    """Type of the key-value cache: the activations' if not said, ``float32``, ``bfloat16``, ``float16``, ``fp8``
    (e4m3) or ``int8`` (with a scale per token and head)."""
    kv_memory: int | None
    """Bytes for the key-value cache."""
    max_model_len: int | None
    """Longest sequence in tokens."""
    max_num_seqs: int | None
    """Most sequences that run at a time."""
    max_batched_tokens: int | None
    """Most tokens of one step: longer prompts are computed in chunks."""
    block_tokens: int | None
    """Tokens in one cache block."""
    num_blocks: int | None
    """Blocks of the cache; the memory budget decides otherwise."""
    prefix_cache: bool | None
    """Reuse the cache of equal beginnings."""
    overlap: bool | None
    """Launch a step before the tokens of the one before it are read."""
    stream_interval: float | None
    """Seconds between two deliveries to whoever reads a stream (0.016, as long as a display shows a picture): tokens
    that come faster go together, but first ones and ends do not wait. An event loop with many streams takes longer, up
    to 0.05. 0 delivers every token at once."""
    capture: bool | None
    """Record the model's step once and replay it: ``True`` insists, ``False`` never, ``None`` where it works."""
    threads: int | None
    """Threads on the CPU."""
    tensor_parallel: int | None
    """Workers that share the model, each on a device of its own."""
    expert_parallel: bool | None
    """Of several workers each holds some experts whole, instead of a part of each."""


class QuantSettings(TypedDict, total=False):
    """What ``requantize`` may say beside the type; as of :class:`ModelSettings`."""

    organization: str | None
    topology: str | None
    imatrix: str | None
    calibrate: str | None


class RequestSettings(TypedDict, total=False):
    """What a request may say beside its prompt and its sampling parameters."""

    salt: bytes
    """Separates prefix-cache entries of callers that must not see each other's timing."""
    adapter: str | None
    """Name of the adapter to use; ``None`` for the model as it is."""
    priority: int
    """Higher runs first."""


def with_adapter(options: RequestSettings | None, adapter: str | None) -> RequestSettings | None:
    """The options of a request whose adapter may be given beside them."""
    if adapter is None:
        return options
    chosen = RequestSettings() if options is None else options.copy()
    chosen["adapter"] = adapter
    return chosen


Plugin = ModuleType | str | os.PathLike[str]
"""A late plugin: an imported module, or the path of a Python file."""

_ENGINE = (
    "max_num_seqs", "max_batched_tokens", "block_tokens", "num_blocks", "prefix_cache", "overlap", "stream_interval",
)  # fmt: skip


def load_options(settings: Mapping[str, Any]) -> LoadOptions:
    """The records that loading takes.

    Raises:
        TypeError: A name that is not a setting.
        ConfigError: Engine settings out of range.
    """
    from tramontane.engine import EngineConfig
    from tramontane.load import LoadOptions

    unknown = sorted(set(settings) - set(ModelSettings.__annotations__))
    if unknown:
        raise TypeError(f"unknown model settings: {', '.join(unknown)}")
    given = {name: value for name, value in settings.items() if value is not None}
    engine = {name: given.pop(name) for name in _ENGINE if name in given}
    if "max_batched_tokens" in engine and "max_num_seqs" not in engine:
        engine["max_num_seqs"] = min(EngineConfig().max_num_seqs, engine["max_batched_tokens"])
    return LoadOptions(engine=EngineConfig(**engine), **given)


def split_plugins(plugins: Sequence[Plugin]) -> tuple[list[object], list[Path]]:
    """Late plugins as (modules, files)."""
    files = [Path(plugin) for plugin in plugins if isinstance(plugin, str | os.PathLike)]
    return [plugin for plugin in plugins if not isinstance(plugin, str | os.PathLike)], files
