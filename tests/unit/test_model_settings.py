# SPDX-License-Identifier: Apache-2.0
"""From the keyword arguments of ``LLM`` to the records of loading."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from tramontane.api.settings import ModelSettings, load_options, split_plugins
from tramontane.engine import EngineConfig
from tramontane.errors import ConfigError
from tramontane.load import LoadOptions


def test_what_is_not_said_is_the_engine_s_choice() -> None:
    assert load_options({}) == LoadOptions()
    assert load_options(dict.fromkeys(ModelSettings.__annotations__)) == LoadOptions()


def test_each_setting_reaches_its_field() -> None:
    """No setting is dropped: every name but those that nothing can use yet is a field of one of the two records."""
    fields = {field.name for record in (LoadOptions, EngineConfig) for field in attrs.fields(record)}
    assert not set(ModelSettings.__annotations__) - fields
    options = load_options(
        {"quant": "q4k", "kv_memory": 5, "capture": False, "max_num_seqs": 3, "block_tokens": 8, "prefix_cache": False}
    )
    assert (options.quant, options.kv_memory, options.capture) == ("q4k", 5, False)
    assert options.engine == EngineConfig(max_num_seqs=3, block_tokens=8, prefix_cache=False)


def test_a_small_step_makes_a_small_batch() -> None:
    """Whoever only asks for small chunks need not know that every running sequence takes a token of a step."""
    assert load_options({"max_batched_tokens": 16}).engine.max_num_seqs == 16
    assert load_options({"max_batched_tokens": 4096}).engine.max_num_seqs == EngineConfig().max_num_seqs
    with pytest.raises(ConfigError, match="must not be below max_num_seqs"):
        load_options({"max_batched_tokens": 16, "max_num_seqs": 32})


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"max_len": 5}, TypeError, "unknown model settings: max_len"),
        ({"max_num_seqs": 0}, ConfigError, "max_num_seqs"),
        ({"max_num_seqs": math.nan}, ConfigError, "max_num_seqs"),
    ],
)
def test_what_cannot_be_served_is_said(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_options(settings)


def test_late_plugins_are_modules_or_files(tmp_path: Path) -> None:
    assert split_plugins([os, "a.py", tmp_path / "b.py"]) == ([os], [Path("a.py"), tmp_path / "b.py"])
