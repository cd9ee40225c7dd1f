# SPDX-License-Identifier: Apache-2.0
"""Settings that configurations share across families: kinds of layers, switches with one supported position."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen

from tramontane.config import layer_types_field, only, read_config
from tramontane.errors import ConfigError

MIXED = ["full_attention", "sliding_attention", "full_attention"]


@frozen(kw_only=True)
class Config:
    num_hidden_layers: int = 2
    layer_types: tuple[str, ...] | None = layer_types_field()
    use_bidirectional_attention: bool | None = only(False, None)
    hidden_act: str = only("silu")


def read(**content: Any) -> Config:
    return read_config(Config, {"num_hidden_layers": 2, **content})


def test_layers_are_read_as_far_as_there_are_layers() -> None:
    assert read(layer_types=MIXED).layer_types == ("full_attention", "sliding_attention")
    assert read().layer_types is None
    assert read(layer_types=None).layer_types is None


@pytest.mark.parametrize("types", [MIXED[:1], "full_attention", {"0": "full_attention"}])
def test_every_layer_needs_a_kind(types: Any) -> None:
    with pytest.raises(ConfigError, match="each of the 2 layers"):
        read(layer_types=types)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="chunked_attention"):
        read(layer_types=["full_attention", "chunked_attention"])


def test_switches_keep_to_what_is_supported() -> None:
    assert read(use_bidirectional_attention=None).use_bidirectional_attention is None
    with pytest.raises(ConfigError, match="use_bidirectional_attention = True is not supported"):
        read(use_bidirectional_attention=True)
    with pytest.raises(ConfigError, match="hidden_act = 'gelu'"):
        read(hidden_act="gelu")
