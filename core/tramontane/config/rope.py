# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding settings, in whichever spelling a configuration has them.

The older spelling is ``rope_theta`` beside ``rope_scaling`` (with ``type`` or ``rope_type``); the newer one is
``rope_parameters``, one object or one per layer type. What the settings mean is :mod:`tramontane.nn.rope`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, frozen

from tramontane.config.reading import derived, read_config
from tramontane.errors import ConfigError

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
"""Known ways to stretch the positions."""
_OTHER_NAMES = {"su": "longrope", "mrope": "default"}
_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
}
_LAYER_TYPE = "full_attention"


@frozen(kw_only=True)
class RopeConfig:
    """Rotary embedding of one kind of layer.

    Attributes:
        theta: Base of the frequencies.
        kind: One of :data:`KINDS`.
        factor: How much longer than trained the positions may be.
        original_max_position_embeddings: Trained length; 0 if the configuration does not say.
        partial_rotary_factor: Share of each head's dimensions that is turned.
        low_freq_factor, high_freq_factor: ``llama3``: the band between stretched and kept wavelengths.
        beta_fast, beta_slow, truncate, mscale, mscale_all_dim: ``yarn``: the ramp and the attention scale.
        attention_factor: ``yarn``, ``longrope``: factor on cosines and sines; computed if ``None``.
        short_factor, long_factor: ``longrope``: one stretch per pair of dimensions.
        short_mscale, long_mscale: ``longrope``: the attention factor of each, where they differ (Phi-3.5-MoE).
        mrope_section, mrope_interleaved: Multimodal rope: pairs per position stream, and whether they alternate.
    """

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    partial_rotary_factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None
    short_mscale: float | None = None
    long_mscale: float | None = None
    mrope_section: tuple[int, ...] | None = None
    mrope_interleaved: bool = False


def rope_field(layer_type: str | None = None, *, theta: float = 10000.0, partial: float = 1.0) -> Any:
    """An attrs field that :func:`tramontane.config.read_config` fills with :func:`read_rope` of the whole mapping.

    Made directly (not read from a file), the field defaults to unscaled rope with ``theta`` and ``partial``.
    """

    def read(mapping: Mapping[str, Any], where: str) -> RopeConfig:
        return read_rope(mapping, where, layer_type=layer_type, theta=theta, partial=partial)

    return derived(read, default=Factory(lambda: RopeConfig(theta=theta, partial_rotary_factor=partial)))


def read_rope(
    config: Mapping[str, Any],
    where: str = "config.json",
    *,
    layer_type: str | None = None,
    theta: float = 10000.0,
    partial: float = 1.0,
) -> RopeConfig:
    """Rope settings of a configuration.

    Args:
        config: The model's configuration.
        where: Names the file in errors.
        layer_type: Which layers' settings, where they differ (``full_attention``, ``sliding_attention`` ...).
        theta: Base where the configuration states none.
        partial: Share of each head that is turned where the configuration states none.

    Raises:
        ConfigError: The kind is unknown, or settings it needs are missing or wrong; all are named.
    """
    settings, path = _settings(config, where, layer_type)
    kind = settings.get("rope_type") or settings.get("type") or "default"
    kind = _OTHER_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    if kind == "yarn" and settings.get("long_factor"):
        kind = "longrope"  # as Phi-3's first checkpoints called it
    if kind not in KINDS:
        raise ConfigError(
            f"{path} asks for the rope kind {kind!r}, which is not known", hint=f"known kinds: {', '.join(KINDS)}"
        )
    values = {key: value for key, value in settings.items() if value is not None}
    values["kind"] = kind
    values["theta"] = values.get("rope_theta") or config.get("rope_theta") or theta
    for key, value in (
        ("partial_rotary_factor", config.get("partial_rotary_factor")),
        ("original_max_position_embeddings", config.get("max_position_embeddings")),
    ):
        if value is not None:
            values.setdefault(key, value)
    values.setdefault("partial_rotary_factor", partial)
    if kind == "dynamic" and config.get("max_position_embeddings"):
        values["original_max_position_embeddings"] = config["max_position_embeddings"]
    elif config.get("original_max_position_embeddings"):  # stated beside the rope settings, it wins over those
        values["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    if "factor" not in values and kind in ("yarn", "longrope"):
        values["factor"] = _ratio(config.get("max_position_embeddings"), values.get("original_max_position_embeddings"))
    missing = [key for key in _NEEDS.get(kind, ()) if values.get(key) is None]
    if missing:
        raise ConfigError(f"{path} asks for the rope kind {kind!r} but lacks {', '.join(missing)}")
    return _checked(read_config(RopeConfig, {k: v for k, v in values.items() if v is not None}, path), path)


def _settings(config: Mapping[str, Any], where: str, layer_type: str | None) -> tuple[Mapping[str, Any], str]:
    """The object that describes one kind of layer, and its path."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    stated = config.get(key) or {}
    path = f"{where}, {key}"
    if not isinstance(stated, Mapping):
        raise ConfigError(f"{path} must be an object, not {stated!r}")
    per_layer = {name: value for name, value in stated.items() if isinstance(value, Mapping)}
    if not per_layer:
        return stated, path
    wanted = layer_type or (_LAYER_TYPE if _LAYER_TYPE in per_layer else next(iter(per_layer)))
    if layer_type is None and wanted != _LAYER_TYPE and len(per_layer) > 1:
        raise ConfigError(f"{path} differs by layer type ({', '.join(per_layer)}), but none was asked for")
    if wanted not in per_layer:
        raise ConfigError(f"{path} has no settings for layers of type {wanted!r} (it has {', '.join(per_layer)})")
    return per_layer[wanted], f"{path}.{wanted}"


def _ratio(longest: Any, trained: Any) -> float | None:
    numbers = all(isinstance(value, int | float) and value > 0 for value in (longest, trained))
    return longest / trained if numbers else None


def _checked(rope: RopeConfig, path: str) -> RopeConfig:
    """Refuse values no kind can work with."""
    faults = []
    if rope.theta <= 0:
        faults.append(f"theta must be above 0, not {rope.theta:g}")
    if rope.factor <= 0:
        faults.append(f"factor must be above 0, not {rope.factor:g}")
    if not 0 < rope.partial_rotary_factor <= 1:
        faults.append(f"partial_rotary_factor must be above 0 and at most 1, not {rope.partial_rotary_factor:g}")
    if rope.kind in _NEEDS and rope.kind != "linear" and rope.original_max_position_embeddings <= 0:
        faults.append("original_max_position_embeddings must be above 0")
    if rope.kind == "llama3" and not 0 < rope.low_freq_factor <= rope.high_freq_factor:
        faults.append("low_freq_factor must be above 0 and not above high_freq_factor")
    if faults:
        raise ConfigError(f"{path}: {'; '.join(faults)}")
    return rope
