# SPDX-License-Identifier: Apache-2.0
"""Reading configurations: kinds of values, faults, rope in both spellings, element types, nested configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import torch
from attrs import frozen

from tramontane.config import (
    RopeConfig,
    Size,
    derived,
    name_pattern,
    parse_dtype,
    read_config,
    read_dtype,
    read_rope,
    renamed,
    rope_field,
    text_config,
)
from tramontane.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "shared/data/configs"


@frozen(kw_only=True)
class Experts:
    count: Size
    names: tuple[str, ...] = ()


def _head_dim(mapping: Mapping[str, Any], where: str) -> int:
    if "hidden_size" not in mapping:
        raise ConfigError("head_dim needs hidden_size")
    return int(mapping["hidden_size"]) // 4


@frozen(kw_only=True)
class Model:
    hidden_size: Size
    layers: Size = renamed("num_hidden_layers", "n_layer", "n_layers")
    eps: float = 1e-6
    act: Literal["silu", "gelu"] = "silu"
    bias: bool = False
    window: int | None = None
    eos: int | tuple[int, ...] | None = renamed("eos_token_id", default=None)
    scales: dict[str, float] = attrs.field(factory=dict)
    experts: Experts | None = None
    others: tuple[Experts, ...] = ()
    anything: Any = None
    head_dim: int = derived(_head_dim)


GOOD = {"hidden_size": 64, "num_hidden_layers": 2}


def read(**changes: Any) -> Model:
    return read_config(Model, GOOD | changes)


def test_values_of_every_kind() -> None:
    model = read(
        eps=1, act="gelu", bias=True, window=8, eos_token_id=[1, 2], scales={"a": 2},
        experts={"count": 3, "names": ["x"]}, others=[{"count": 1}, {"count": 2}], anything={"x": [1]},
        unknown_key="ignored",
    )  # fmt: skip
    assert model == Model(
        hidden_size=64, layers=2, eps=1.0, act="gelu", bias=True, window=8, eos=(1, 2), scales={"a": 2.0},
        experts=Experts(count=3, names=("x",)), others=(Experts(count=1), Experts(count=2)), anything={"x": [1]},
        head_dim=16,
    )  # fmt: skip
    assert isinstance(model.eps, float)


def test_absent_null_and_renamed_keys() -> None:
    model = read(eps=None, bias=None, window=None, eos_token_id=7)
    assert (model.eps, model.bias, model.window, model.eos) == (1e-6, False, None, 7)
    assert read_config(Model, {"hidden_size": 64.0, "n_layer": 3}).layers == 3
    assert read_config(Model, {"hidden_size": 64, "n_layers": 4, "n_layer": 3}).layers == 3


def test_every_fault_is_named_with_its_path() -> None:
    wrong = {
        "hidden_size": "64", "eps": "small", "act": "relu", "bias": 1, "window": 1.5, "eos_token_id": [1, "x"],
        "scales": {"a": "b"}, "experts": {"names": ["x", 3]}, "others": [{"count": 1}, {"count": 0}, 7],
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        read_config(Model, wrong, "here/config.json")
    text = caught.value.message
    assert text.startswith("here/config.json has 12 unusable keys:")
    for line in (
        "hidden_size: must be a whole number, not '64'",
        "num_hidden_layers: is missing",
        "eps: must be a number, not 'small'",
        "act: must be one of 'silu', 'gelu', not 'relu'",
        "bias: must be true or false, not 1",
        "window: must be a whole number, not 1.5",
        "eos_token_id: must be a whole number",
        "scales.a: must be a number, not 'b'",
        "experts.count: is missing",
        "experts.names[1]: must be a text, not 3",
        "others[1].count: must be from 1 to 2147483647, not 0",
        "others[2]: must be an object, not 7",
    ):
        assert f"\n  {line}" in text


@pytest.mark.parametrize(
    "value", [0, -1, 2**31, True, None, "8", [8], {}, float("nan"), float("inf"), 1e300, 8.5], ids=str
)
def test_sizes_are_whole_and_possible(value: Any) -> None:
    with pytest.raises(ConfigError, match="hidden_size"):
        read(hidden_size=value)


def test_an_endless_number_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(ConfigError, match="eps: must be a number that fits"):
        read(eps=10**400)


def test_derived_faults_and_validators_are_reported_with_the_others() -> None:
    with pytest.raises(
        ConfigError, match=r"hidden_size: is missing\n  num_hidden_layers: is missing\n  .*needs hidden_size"
    ):
        read_config(Model, {})

    @frozen
    class Even:
        size: int

        def __attrs_post_init__(self) -> None:
            if self.size % 2:
                raise ConfigError("size must be even")

    with pytest.raises(ConfigError, match="size must be even"):
        read_config(Even, {"size": 3})
    with pytest.raises(ConfigError, match="must be an object"):
        read_config(Even, [1])  # type: ignore[arg-type]


def test_strict_reading_names_unknown_keys_and_near_misses() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(Experts, {"count": 1, "nmes": [], "zzz": 1}, "settings.toml", strict=True)
    assert "nmes: is not a known key (did you mean 'names'?)" in caught.value.message
    assert "zzz: is not a known key" in caught.value.message
    with pytest.raises(ConfigError, match=r"experts\.x: is not a known key"):
        read_config(Model, GOOD | {"experts": {"count": 1, "x": 1}}, strict=True)


# --- rope ------------------------------------------------------------------------------------------------------------

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        {"rope_parameters": {"full_attention": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}},
        {"rope_theta": 1e4, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ],
)
def test_both_spellings_of_rope_say_the_same(spelling: dict[str, Any]) -> None:
    rope = read_rope({"max_position_embeddings": 131072, **spelling})
    assert rope == RopeConfig(
        kind="llama3",
        theta=5e5,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )


def test_plain_rope_and_its_defaults() -> None:
    assert read_rope({}) == RopeConfig()
    assert read_rope({"rope_scaling": None, "rope_theta": None}, theta=1e6).theta == 1e6
    rope = read_rope({"rope_theta": 10000, "max_position_embeddings": 4096, "partial_rotary_factor": 0.5})
    assert (rope.theta, rope.original_max_position_embeddings, rope.partial_rotary_factor) == (10000.0, 4096, 0.5)


def test_rope_by_layer_type() -> None:
    config = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    }
    assert read_rope(config).kind == "linear"
    assert read_rope(config, layer_type="sliding_attention").theta == 1e4

    @frozen(kw_only=True)
    class Layered:
        full: RopeConfig = rope_field("full_attention")
        local: RopeConfig = rope_field("sliding_attention")

    layered = read_config(Layered, config)
    assert (layered.full.factor, layered.local.kind) == (8.0, "default")
    assert Layered().full == RopeConfig()
    with pytest.raises(ConfigError, match="no settings for layers of type 'chunked'"):
        read_rope(config, layer_type="chunked")
    with pytest.raises(ConfigError, match="differs by layer type"):
        read_rope({"rope_parameters": {"a": {}, "b": {}}})


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"type": "linear", "factor": 2}, {"factor": 2.0}),
        (
            {"type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 7},
            {"original_max_position_embeddings": 4096},
        ),
        (
            {"type": "yarn", "factor": 4.0, "beta_fast": 64, "mscale": 0.7, "truncate": False},
            {
                "beta_fast": 64.0,
                "beta_slow": 1.0,
                "mscale": 0.7,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        ),
        ({"type": "yarn", "original_max_position_embeddings": 1024}, {"factor": 4.0}),
        (
            {"type": "su", "short_factor": [1.0], "long_factor": [2.0]},
            {"kind": "longrope", "long_factor": (2.0,), "factor": 1.0},
        ),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, {"kind": "default", "mrope_section": (16, 24, 24)}),
    ],
)
def test_kinds_of_rope(scaling: dict[str, Any], expected: dict[str, Any]) -> None:
    rope = read_rope({"max_position_embeddings": 4096, "rope_scaling": scaling})
    assert {name: getattr(rope, name) for name in expected} == expected


def test_a_trained_length_beside_the_rope_settings_wins() -> None:
    config = {
        "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
    }  # fmt: skip
    assert read_rope(config).factor == 32
    assert read_rope(config).original_max_position_embeddings == 4096


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_scaling": {"type": "spiral"}}, r"rope kind 'spiral', which is not known"),
        ({"rope_parameters": {"rope_type": 3}}, "rope kind 3"),
        ({"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ({"rope_scaling": {"type": "llama3", "factor": 8}}, "lacks low_freq_factor, high_freq_factor, original_max"),
        ({"rope_scaling": {"type": "longrope", "factor": 8}}, "lacks short_factor, long_factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor: must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor must be above 0"),
        ({"rope_scaling": "linear"}, "must be an object"),
        ({"rope_theta": "big"}, "theta: must be a number"),
        ({"rope_theta": -1.0}, "theta must be above 0"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor must be"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 9.0}}, "low_freq_factor must be"),
    ],
)
def test_unusable_rope_settings_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_rope(config, "x/config.json")
    assert "x/config.json" in caught.value.message

    @frozen(kw_only=True)
    class Owner:
        size: int
        rope: RopeConfig = rope_field()

    with pytest.raises(ConfigError, match="size: is missing"):
        read_config(Owner, config)


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the shared test data are not beside the checkout")
def test_published_configurations_are_read() -> None:
    """Every published config gives rope settings, or an error that names the unknown kind."""
    read_count, unknown = 0, set()
    for path in sorted((CONFIGS / "aiconfigurator-hf").glob("*.json")):
        config = text_config(json.loads(path.read_text()))
        if "hidden_size" not in config:
            continue
        try:
            rope = read_rope(config, path.name)
        except ConfigError as error:
            unknown.add(error.message.partition("rope kind ")[2])
            continue
        read_dtype(config)
        assert rope.theta >= 1000
        read_count += 1
    assert read_count > 40
    assert unknown <= {"'proportional', which is not known"}


# --- element types and nested configurations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "torch.float16", "torch_dtype": "float32"}, torch.float16),
        ({"dtype": "fp32"}, torch.float32),
        ({"torch_dtype": "auto"}, None),
        ({}, None),
    ],
)
def test_element_types(config: dict[str, Any], expected: torch.dtype | None) -> None:
    assert read_dtype(config) is expected


@pytest.mark.parametrize("name", ["int8", "nn", "save", "float9", ""])
def test_other_names_are_no_element_types(name: str) -> None:
    with pytest.raises(ConfigError, match="no weight type"):
        parse_dtype(name)
    with pytest.raises(ConfigError, match="must be a name"):
        read_dtype({"dtype": 16})


def test_the_text_part_of_a_multimodal_configuration() -> None:
    config = {
        "architectures": ["VisionText"], "torch_dtype": "bfloat16", "tie_word_embeddings": True, "hidden_size": 1,
        "text_config": {"hidden_size": 64, "tie_word_embeddings": False, "torch_dtype": None},
    }  # fmt: skip
    text = text_config(config)
    assert text == {
        "architectures": ["VisionText"],
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "hidden_size": 64,
    }
    assert text_config(GOOD) is GOOD


# --- patterns of module names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (r".*self_attn.*", "model.layers.0.self_attn.q_proj", True),
        (r".*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.0.mlp.up_proj", True),
        (r"model\.layers\.(?:[0-9]|1[0-5])\..*\.(?:up|gate)_proj", "model.layers.12.mlp.up_proj", True),
        (r".*\.\d{1,2}\..*[*+]?x", "model.layers.0.self_attn", False),
        (r"lm_head", "lm_head", True),
    ],
)
def test_names_by_pattern(pattern: str, name: str, found: bool) -> None:
    assert bool(name_pattern(pattern).fullmatch(name)) is found


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*c", "(a{1,9}){1,9}", ".*.*.*.*.*.*x", "a" * 2000, "(", "a{5,1}", "(?:a|b)+", "*"]
)
def test_patterns_that_could_take_forever_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        name_pattern(pattern)
