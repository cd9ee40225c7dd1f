# SPDX-License-Identifier: Apache-2.0
"""Rope frequencies of every scaling, against transformers'; rotation against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tramontane.config import read_rope
from tramontane.errors import PlanError
from tramontane.nn.rope import frequencies, rope_table
from tramontane.ops.rotary import rotate_heads

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    "yarn_sharp": {
        "rope_type": "yarn",
        "factor": 16.0,
        "beta_fast": 32.0,
        "beta_slow": 4.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
    "yarn_mscale": {
        "rope_type": "yarn",
        "factor": 8.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
        "original_max_position_embeddings": 128,
    },
    "yarn_attention_factor": {
        "rope_type": "yarn",
        "factor": 8.0,
        "attention_factor": 1.25,
        "original_max_position_embeddings": 128,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(16)],
        "long_factor": [2.0 + 0.2 * i for i in range(16)],
        "original_max_position_embeddings": 128,
    },
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("length", [100, 700])
def test_frequencies_equal_transformers(name: str, length: int) -> None:
    modeling = pytest.importorskip("transformers.modeling_rope_utils")
    from transformers import LlamaConfig

    settings = {"rope_theta": 10000.0, **SCALINGS[name]}
    theirs = LlamaConfig(
        hidden_size=128, num_attention_heads=4, head_dim=32, max_position_embeddings=512, rope_parameters=settings
    )
    if name == "default":
        expected = 1.0 / 10000.0 ** (torch.arange(0, 32, 2).float() / 32)
        factor = 1.0
    else:
        make = modeling.ROPE_INIT_FUNCTIONS[settings["rope_type"]]
        expected, factor = make(theirs, torch.device("cpu"), seq_len=length)
    ours = read_rope({"max_position_embeddings": 512, "rope_parameters": settings})
    found, our_factor = frequencies(ours, 32, length)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert our_factor == pytest.approx(factor)


def test_the_two_spellings_mean_the_same() -> None:
    old = read_rope({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})
    new = read_rope({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}})
    assert old == new


def test_a_table_holds_cosines_then_sines() -> None:
    table = rope_table(read_rope({"rope_theta": 100.0}), 8, 5)
    angle = 3 * 100.0 ** (-torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(table[3], torch.cat((angle.cos(), angle.sin())))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_multiplication_by_a_unit_complex_number(interleaved: bool) -> None:
    x = torch.randn(3, 2, 10)
    angle = torch.randn(3, 4)
    turned = rotate_heads(x, angle.cos(), angle.sin(), interleaved=interleaved)
    first, second = (x[..., 0:8:2], x[..., 1:8:2]) if interleaved else (x[..., :4], x[..., 4:8])
    expected = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    got = (turned[..., 0:8:2], turned[..., 1:8:2]) if interleaved else (turned[..., :4], turned[..., 4:8])
    torch.testing.assert_close(torch.complex(*got), expected)
    assert torch.equal(turned[..., 8:], x[..., 8:]), "features beyond the rotary dimension pass"


def test_what_cannot_be_turned_is_refused() -> None:
    with pytest.raises(PlanError, match="even rotary dimension"):
        rope_table(read_rope({}), 7, 4)
    longrope = read_rope(
        {
            "max_position_embeddings": 64,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0],
                "long_factor": [1.0],
                "original_max_position_embeddings": 32,
            },
        }
    )
    with pytest.raises(PlanError, match="4 factors"):
        frequencies(longrope, 8, 64)
